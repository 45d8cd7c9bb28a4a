"""Every run has exactly one ending that its user sees, whatever process is killed and whenever.

`FACTORYCHAIN_SURVIVAL_S=60 FACTORYCHAIN_SURVIVAL_USERS=20` makes it longer, and
`FACTORYCHAIN_SURVIVAL_SEED` repeats a choice of victims.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.aftermath import Aftermath
from tests.e2e.chain import Chain, running_chain
from tests.e2e.witness import Witness

pytestmark = pytest.mark.asyncio(loop_scope="session")

SECONDS = float(os.environ.get("FACTORYCHAIN_SURVIVAL_S", "5"))
USERS = int(os.environ.get("FACTORYCHAIN_SURVIVAL_USERS", "6"))
SEED = int(os.environ.get("FACTORYCHAIN_SURVIVAL_SEED", str(time.time_ns() % 100_000)))
LAYERS = ("agents", "emitter", "bridge", "engine", "nats")
THOUGHTS = 8
_LAST_RUNS_S = 60.0


@pytest.mark.timeout(SECONDS + 450)
async def test_every_run_ends_once_whatever_is_killed(tmp_path: Path) -> None:
    env = {
        "FACTORYCHAIN_FRAMES_PER_S": "1000",
        "FACTORYCHAIN_FRAMES_BURST": "1000",
        # What an engine that is gone has held is found sooner, and with it the places of its users.
        "FACTORYCHAIN_HEARTBEAT_TTL_S": "3",
        "FACTORYCHAIN_CLEANUP_INTERVAL_S": "1",
        "FACTORYCHAIN_LOG_LEVEL": os.environ.get("FACTORYCHAIN_SURVIVAL_LOG_LEVEL", "info"),
    }
    async with running_chain(tmp_path / "chain", env=env) as chain:
        witnesses = [
            Witness(
                lambda: chain.state.edge,
                chain.token(f"user-{index}"),
                f"user-{index}",
                threads=2,
                story=f"{THOUGHTS}|60",
            )
            for index in range(USERS)
        ]
        killed = await _live_through(chain, witnesses)
        story = f"seed {SEED}, killed {killed}"
        broken = [each for witness in witnesses for each in witness.broken]
        assert broken == [], story
        assert sum(len(each.admitted) for each in witnesses) >= 2 * USERS, story
        after = Aftermath(lambda: chain.state.edge, chain.token, THOUGHTS, story)
        for witness in witnesses:
            await after.check_log(witness)
        await asyncio.gather(*map(after.check_places, witnesses))


async def _live_through(chain: Chain, witnesses: list[Witness]) -> list[str]:
    """Users at work while processes die; returns whom it hit when everybody's last run has ended."""
    done = asyncio.Event()
    connections = [asyncio.create_task(each.connect_for_ever()) for each in witnesses]
    talks = [
        asyncio.create_task(each.talk(thread, done)) for each in witnesses for thread in each.seen
    ]
    try:
        killed = await _kill_at_random(chain)
        done.set()
        _, hung = await asyncio.wait(talks, timeout=_LAST_RUNS_S)
        left = {each.name: each.waiting_for() for each in witnesses if each.waiting_for()}
        assert not hung, f"seed {SEED}, killed {killed}: no ending was seen of {left}"
        for each in talks:
            each.result()
        return killed
    finally:
        for each in [*talks, *connections]:
            each.cancel()
        await asyncio.gather(*talks, *connections, return_exceptions=True)


async def _kill_at_random(chain: Chain) -> list[str]:
    chance = random.Random(SEED)
    until_s = time.monotonic() + SECONDS
    victims: list[str] = []
    while time.monotonic() < until_s:
        await asyncio.sleep(chance.uniform(0.2, 1.5))
        # Every layer has its turn before one has a second; now and then two die together.
        left = [each for each in LAYERS if victims.count(each) <= len(victims) // len(LAYERS)]
        dying = chance.sample(left, min(len(left), chance.choice((1, 1, 1, 2))))
        pids = {layer: chain.pid(layer) for layer in dying}
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        victims += dying
        await asyncio.gather(*(chain.restarted(layer, pid) for layer, pid in pids.items()))
    return victims
