"""Run after run in processes of their own, every kind of end among them: nothing grows.

Those that the service ends (at a limit, for silence, at their deadline) take seconds each: a few users
have nothing else, beside all others.

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
_ENDED = (
    Kind("mortal", "hangs", "agent_failed", ("UNRESPONSIVE",)),
    # It gets what others leave of the processor, and may fall silent before it has had all that it may.
    Kind("mortal", "spins", "agent_failed", ("CPU_LIMIT", "UNRESPONSIVE")),
    Kind("mortal", "eats", "agent_failed", ("MEMORY_LIMIT",)),
    Kind("lasting", "lasts", "agent_failed", ("DEADLINE",)),
)
_OF_WHICH_ONE_IS_ENDED = 50


@pytest.mark.timeout(600 + RUNS)
async def test_nothing_is_left_of_runs_in_processes(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    env = {
        "FACTORYCHAIN_ISOLATION": "process",
        "FACTORYCHAIN_IDLE_PROCESSES_MIN": str(IDLE),
        "FACTORYCHAIN_IDLE_PROCESSES_MAX": str(IDLE),
        "FACTORYCHAIN_CANCEL_GRACE_S": "0.3",
        "FACTORYCHAIN_AGENT_SILENCE_MAX_S": "8",
        "FACTORYCHAIN_AGENT_CPU_MAX_S": "1",
        "FACTORYCHAIN_AGENT_MEMORY_MAX_BYTES": str(32 * _MIB),
        "FACTORYCHAIN_FRAMES_PER_S": "1000",
        "FACTORYCHAIN_FRAMES_BURST": "1000",
        "TMPDIR": str(temporary),
    }
    agents = ("--agents", "tests.e2e.mortal")
    async with running_chain(tmp_path / "chain", agents, env) as chain:
        await _runs(chain, _WARM_UP)
        rest, before = await at_rest(chain, temporary, IDLE), await _all_held(chain)
        for done in range(0, RUNS, _ROUND):
            count = min(_ROUND, RUNS - done)
            await _runs(chain, count)
            assert await back_at(rest, chain, temporary, IDLE) == rest
            after = await _all_held(chain)
            print(f"{done + count:6} runs, MiB more than before: {_more_mib(before, after)}")
        await assert_nothing_more(chain, before, 24 * _MIB)
        assert await admissions(chain) == []
        everybody = children(chain)
    assert not [each for each in everybody if each.is_running()]
    assert list(temporary.iterdir()) == []


async def _runs(chain: Chain, count: int) -> None:
    """So many runs that end by themselves or are cancelled, and a few more that are ended."""
    users = len(_ENDED)
    each = max(1, count // _OF_WHICH_ONE_IS_ENDED // users)
    await asyncio.gather(
        run_all(chain, count, _KINDS),
        run_all(chain, each * users, _ENDED, users=users, threads=1, name="ended"),
    )


async def _all_held(chain: Chain) -> dict[str, dict[str, Any]]:
    """What each layer holds when it has had the time to let go."""
    await asyncio.sleep(RELEASED_WITHIN_S)
    return {layer: await held(chain, layer) for layer in LAYERS}


def _more_mib(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> str:
    grown = {
        layer: (after[layer]["rss_bytes"] - before[layer]["rss_bytes"]) / _MIB for layer in LAYERS
    }
    return ", ".join(f"{layer} {mib:.1f}" for layer, mib in grown.items())
