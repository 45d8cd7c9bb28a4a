"""Whatever hangs, the process ends with a status of its own, and says where."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.chaos.watchdog import STATUS
from tests.e2e.chain import ROOT

_PROGRAM = """
import asyncio, sys, time
from tests.chaos.watchdog import Watchdog

async def waits_for_ever():
    await asyncio.Event().wait()

def holds_the_loop():
    time.sleep(60)

async def main(what):
    watchdog = Watchdog(asyncio.get_running_loop(), patience_s=5 if what == "waits" else 0.5)
    watchdog.phase("a short one", 60)
    watchdog.phase("the last one", 0.3)
    if what == "rests":
        watchdog.rest()
        return await asyncio.sleep(0.6)
    if what == "holds":
        holds_the_loop()
    await asyncio.gather(*(waits_for_ever() for _ in range(3)))

asyncio.run(main(sys.argv[1]))
"""


def _run(what: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _PROGRAM, what]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("what", "said"), [("waits", "3 × waits_for_ever"), ("holds", "in holds_the_loop")]
)
def test_what_hangs_is_said(what: str, said: str) -> None:
    ended = _run(what)
    assert ended.returncode == STATUS, ended.stderr
    assert "HANGS: the last one" in ended.stderr
    assert said in ended.stderr


def test_a_phase_that_is_over_bites_nobody() -> None:
    assert _run("rests").returncode == 0
