"""Run after run in processes of their own, every kind of end among them: nothing grows.

`make soak` makes ten thousand runs, or `RUNS=1000`; `.ci/run` makes a hundred. The other tests of load
do all that they do there, and a part of it in `make test`.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.chain import Chain, running_chain
from tests.e2e.held import LAYERS, held
from tests.e2e.sinks import at_rest, back_at, children
from tests.e2e.workers import (
    KINDS,
    RELEASED_WITHIN_S,
    Kind,
    admissions,
    assert_nothing_more,
    run_all,
)

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.load]

RUNS = int(os.environ.get("FACTORYCHAIN_SOAK_RUNS", "100"))
# As many at all times: what there is afterwards can be compared with what there was before.
IDLE = 4
_MIB = 1024 * 1024
_WARM_UP = 160
_ROUND = 1000
_KINDS = (
    *KINDS,
    Kind("mortal", "completes", "agent_completed"),
    Kind("mortal", "exits", "agent_failed"),
    Kind("mortal", "crashes", "agent_failed"),
    Kind("mortal", "stays", "agent_cancelled"),
)


@pytest.mark.timeout(600 + RUNS)
async def test_nothing_is_left_of_runs_in_processes(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    env = {
        "FACTORYCHAIN_ISOLATION": "process",
        "FACTORYCHAIN_IDLE_PROCESSES_MIN": str(IDLE),
        "FACTORYCHAIN_IDLE_PROCESSES_MAX": str(IDLE),
        "FACTORYCHAIN_CANCEL_GRACE_S": "0.3",
        "FACTORYCHAIN_FRAMES_PER_S": "1000",
        "FACTORYCHAIN_FRAMES_BURST": "1000",
        "TMPDIR": str(temporary),
    }
    agents = ("--agents", "tests.e2e.mortal")
    async with running_chain(tmp_path / "chain", agents, env) as chain:
        await run_all(chain, _WARM_UP, _KINDS)
        rest, before = await at_rest(chain, temporary, IDLE), await _all_held(chain)
        for done in range(0, RUNS, _ROUND):
            count = min(_ROUND, RUNS - done)
            await run_all(chain, count, _KINDS)
            assert await back_at(rest, chain, temporary, IDLE) == rest
            after = await _all_held(chain)
            print(f"{done + count:6} runs, MiB more than before: {_more_mib(before, after)}")
        await assert_nothing_more(chain, before, 24 * _MIB)
        assert await admissions(chain) == []
        everybody = children(chain)
    assert not [each for each in everybody if each.is_running()]
    assert list(temporary.iterdir()) == []


async def _all_held(chain: Chain) -> dict[str, dict[str, Any]]:
    """What each layer holds when it has had the time to let go."""
    await asyncio.sleep(RELEASED_WITHIN_S)
    return {layer: await held(chain, layer) for layer in LAYERS}


def _more_mib(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> str:
    grown = {
        layer: (after[layer]["rss_bytes"] - before[layer]["rss_bytes"]) / _MIB for layer in LAYERS
    }
    return ", ".join(f"{layer} {mib:.1f}" for layer, mib in grown.items())
