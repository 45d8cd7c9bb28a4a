"""Slices: what a process takes, its threads and children have, until they take others."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from factorychain._sandbox.slices import SHORT_NS

_PROBE = """
import sys, threading
from pathlib import Path
from factorychain._sandbox.slices import take_default_slices, take_short_slices

def own():
    text = Path(f"/proc/self/task/{threading.get_native_id()}/sched").read_text()
    return next(line.split()[-1] for line in text.splitlines() if line.startswith("se.slice"))

def in_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(own()))
    thread.start(); thread.join()
    return found[0]

before = own()
take_short_slices()
import os
nice = os.getpriority(os.PRIO_PROCESS, 0)
short, inherited = own(), in_thread()
take_default_slices()
print(before, short, inherited, own(), nice)
"""


def _has_slices() -> bool:
    release = tuple(int(each) for each in re.findall(r"\d+", platform.release())[:2])
    sched = Path("/proc/self/sched")
    return release >= (6, 12) and sched.exists() and "se.slice" in sched.read_text()


def test_threads_have_the_short_slices_of_who_started_them_and_a_run_has_others() -> None:
    if not _has_slices():
        pytest.skip("this kernel has slices of one length, or does not show them")
    done = subprocess.run(
        [sys.executable, "-c", _PROBE],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.nice(3),
    )
    before, short, inherited, after, nice = done.stdout.split()
    assert int(short) == int(inherited) == SHORT_NS
    assert before == after != short
    assert nice == str(os.getpriority(os.PRIO_PROCESS, 0) + 3)
