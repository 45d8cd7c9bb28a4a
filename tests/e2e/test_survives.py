"""Every run has exactly one ending that its user sees, whatever process is killed and whenever.

`FACTORYCHAIN_SURVIVAL_S=60 FACTORYCHAIN_SURVIVAL_USERS=20` makes it longer, and
`FACTORYCHAIN_SURVIVAL_SEED` repeats a choice of victims.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.chain import Chain, running_chain
from tests.e2e.sockets import ENDINGS, Closed, Frame, Socket, connected
from tests.e2e.witness import Witness

pytestmark = pytest.mark.asyncio(loop_scope="session")

SECONDS = float(os.environ.get("FACTORYCHAIN_SURVIVAL_S", "5"))
USERS = int(os.environ.get("FACTORYCHAIN_SURVIVAL_USERS", "6"))
SEED = int(os.environ.get("FACTORYCHAIN_SURVIVAL_SEED", str(time.time_ns() % 100_000)))
LAYERS = ("agents", "emitter", "bridge", "engine", "nats")
THOUGHTS = 8
_LAST_RUNS_S = 60.0
_FREE_WITHIN_S = 40.0


@pytest.mark.timeout(SECONDS + 150)
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
        for witness in witnesses:
            await _check_log(chain, witness, story)
        await asyncio.gather(*(_check_places(chain, each, story) for each in witnesses))


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


async def _check_log(chain: Chain, witness: Witness, story: str) -> None:
    """What the log has is what the user saw, and of every admitted run a whole story."""
    async with _steady(chain, witness) as socket:
        for thread, seen in witness.seen.items():
            logged = await _logged(socket, thread)
            assert _first_difference(logged, seen.events) is None, (
                f"{story}: seen ≠ logged, {thread}"
            )
            assert [each["seq"] for each in logged] == list(range(1, len(logged) + 1)), story
            for run in {each["run"] for each in logged}:
                _check_run(run, [each for each in logged if each["run"] == run], story)
            expected = {run for run, where in witness.admitted.items() if where == thread}
            missing = expected - {each["run"] for each in logged}
            assert not missing, f"{story}: nothing is logged of {missing}"


def _first_difference(logged: list[Frame], seen: list[Frame]) -> tuple[Frame, Frame] | int | None:
    """What differs first, the two lengths apart; whole lists would take minutes to show."""
    for one, other in zip(logged, seen, strict=False):
        if one != other:
            return one, other
    return None if len(logged) == len(seen) else len(logged) - len(seen)


async def _logged(socket: Socket, thread: str) -> list[Frame]:
    await socket.result("subscribe", thread=thread, after=0)
    await socket.wait_for(lambda f: f["op"] == "caught_up" and f["thread"] == thread)
    return socket.events(thread)


def _check_run(run: str, events: list[Frame], story: str) -> None:
    kinds = [each["type"] for each in events]
    assert sum(kind in ENDINGS for kind in kinds) == 1, f"{story}: {run} has {kinds}"
    assert kinds[-1] in ENDINGS, f"{story}: {run} goes on after its ending: {kinds}"
    ending = events[-1]["data"]
    if kinds[-1] != "agent_completed":
        assert (kinds[-1], ending["reason"]) == ("agent_failed", "AGENT_LOST"), f"{story}: {ending}"
        return
    assert kinds[0] == "agent_started", f"{story}: {run} has {kinds}"
    thoughts = [each["data"]["text"] for each in events if each["type"] == "agent_thinking"]
    assert thoughts == [f"{ending['output']} {index}" for index in range(THOUGHTS)], story
    said = "".join(each["data"]["text"] for each in events if each["type"] == "message_delta")
    assert said == "".join(f"{ending['output']} said {index} " for index in range(THOUGHTS)), story
    assert kinds.count("tool_executing") == kinds.count("tool_completed") == THOUGHTS, story


async def _check_places(chain: Chain, witness: Witness, story: str) -> None:
    """Both places of the user are free: two runs at once are admitted."""
    async with asyncio.timeout(_FREE_WITHIN_S):
        while True:
            async with _steady(chain, witness) as socket:
                replies = [
                    await socket.call(
                        "start", agent="waits", input={"text": "0.5"}, thread=f"after-{index}"
                    )
                    for index in range(2)
                ]
                runs = [each["result"]["run"] for each in replies if "result" in each]
                for run in runs:
                    ending = await socket.ending(run)
                    assert ending["type"] == "agent_completed", f"{story}: {ending}"
                if len(runs) == 2:
                    return
            await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def _steady(chain: Chain, witness: Witness) -> AsyncIterator[Socket]:
    """A socket on a chain that may still be coming back."""
    async with contextlib.AsyncExitStack() as stack:
        async with asyncio.timeout(30):
            while True:
                manager = connected(chain.state.edge, chain.token(witness.name))
                try:
                    socket = await stack.enter_async_context(manager)
                    break
                except (OSError, Closed):
                    await asyncio.sleep(0.2)
        yield socket
