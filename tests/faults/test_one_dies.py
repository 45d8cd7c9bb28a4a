"""Two replicas of every layer over three NATS servers: any one process may die.

`FACTORYCHAIN_REPLICAS_ROUNDS=5` has everything die five times.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from tests.e2e.aftermath import Aftermath
from tests.e2e.replicated import Replicated, replicated
from tests.e2e.sizes import LAYERS
from tests.e2e.witness import Witness

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROUNDS = int(os.environ.get("FACTORYCHAIN_REPLICAS_ROUNDS", "1"))
USERS = 4
THOUGHTS = 8
_LAST_RUNS_S = 60.0
_AT_WORK_S = 0.7
_AWAY_S = 0.7


@pytest.mark.timeout(120 + 90 * ROUNDS)
async def test_any_one_process_may_die(tmp_path: Path) -> None:
    async with replicated(tmp_path / "chain") as chain:
        witnesses = [
            Witness(
                lambda: random.choice(chain.edges),
                chain.token(f"user-{index}"),
                f"user-{index}",
                threads=2,
                story=f"{THOUGHTS}|60",
            )
            for index in range(USERS)
        ]
        killed = await _live_through(chain, witnesses)
        story = f"killed {killed}"
        assert [each for witness in witnesses for each in witness.broken] == [], story
        assert sum(len(each.admitted) for each in witnesses) >= 2 * USERS, story
        after = Aftermath(lambda: random.choice(chain.edges), chain.token, THOUGHTS, story)
        for witness in witnesses:
            await after.check_log(witness)
        await asyncio.gather(*map(after.check_places, witnesses))


async def _live_through(chain: Replicated, witnesses: list[Witness]) -> list[str]:
    """Users at work while one process after the other dies and comes back; who it was."""
    done = asyncio.Event()
    connections = [asyncio.create_task(each.connect_for_ever()) for each in witnesses]
    talks = [
        asyncio.create_task(each.talk(thread, done)) for each in witnesses for thread in each.seen
    ]
    try:
        killed: list[str] = []
        for _ in range(ROUNDS):
            for layer in ("nats", *LAYERS):
                for name in chain.names(layer):
                    killed.append(name)
                    await _die_and_return(chain, name)
        done.set()
        _, hung = await asyncio.wait(talks, timeout=_LAST_RUNS_S)
        left = {each.name: each.waiting_for() for each in witnesses if each.waiting_for()}
        assert not hung, f"killed {killed}: no ending was seen of {left}"
        for each in talks:
            each.result()
        return killed
    finally:
        for each in [*talks, *connections]:
            each.cancel()
        await asyncio.gather(*talks, *connections, return_exceptions=True)


async def _die_and_return(chain: Replicated, name: str) -> None:
    await asyncio.sleep(_AT_WORK_S)
    await chain.kill(name)
    await asyncio.sleep(_AWAY_S)
    await chain.start(name)
    await chain.serving(name)
