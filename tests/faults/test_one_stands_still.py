"""A process that stands still and closes nothing, as one on a machine that is lost: no connection breaks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.aftermath import Aftermath
from tests.e2e.chain import running_chain
from tests.e2e.replicated import Replicated
from tests.e2e.sockets import Frame, Socket, connected
from tests.e2e.witness import Witness

pytestmark = pytest.mark.asyncio(loop_scope="session")

OUTAGE_MAX_S = 16
STILL_S = 20.0
# Runs that speak for longer than that, and others that are over soon.
LONG, SHORT = 150, 2
SPEAKERS = 4
_LAST_RUNS_S = 60.0
_SETTLED_S = 12.0
_GIVEN_UP_S = 23.0
"""Longer than the edge waits for the answer to a start."""
_AWAKE_S = 4.0


class Unharmed(Aftermath):
    """Nothing excuses the end of a run."""

    def _check_run(self, run: str, events: list[Frame]) -> None:
        assert events[-1]["type"] == "agent_completed", f"{self.story}: {run}: {events[-1]}"
        super()._check_run(run, events)


@contextlib.contextmanager
def still(chain: Replicated, name: str) -> Iterator[None]:
    process = chain.processes[name]
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@pytest.mark.timeout(600)
async def test_one_of_several_may_stand_still(tmp_path: Path) -> None:
    """Runs that speak meanwhile go on before they would be given up, and new ones begin."""
    env = {"FACTORYCHAIN_OUTAGE_MAX_S": str(OUTAGE_MAX_S)}
    (tmp_path / "chain").mkdir()
    chain = Replicated(tmp_path / "chain", env)
    try:
        await chain.start_all()
        for name in ("emitter-0", "bridge-0", "engine-0", "nats-0", "nats-1"):
            await _one_stands_still(chain, name)
    except BaseException as error:
        error.add_note(chain.logs())
        raise
    finally:
        await chain.stop()


async def _one_stands_still(chain: Replicated, name: str) -> None:
    def edge() -> str:
        """Clients are at another bridge."""
        return random.choice([e for i, e in enumerate(chain.edges) if name != f"bridge-{i}"])

    def user(index: int, thoughts: int) -> Witness:
        who = f"{name}-{index}"
        return Witness(edge, chain.token(who), who, threads=1, story=f"{thoughts}|160")

    speakers = [user(index, LONG) for index in range(SPEAKERS)]
    others = [user(SPEAKERS + index, SHORT) for index in range(2)]
    witnesses, done = [*speakers, *others], asyncio.Event()
    connections = [asyncio.create_task(each.connect_for_ever()) for each in witnesses]
    talks = [asyncio.create_task(each.talk(t, done)) for each in witnesses for t in each.seen]
    try:
        async with asyncio.timeout(30):
            while not all(each.admitted for each in witnesses):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        with still(chain, name):
            await asyncio.sleep(_SETTLED_S)
            begun = sum(len(each.admitted) for each in others)
            await asyncio.sleep(STILL_S - _SETTLED_S)
            meanwhile = sum(len(each.admitted) for each in others) - begun
        done.set()
        _, hung = await asyncio.wait(talks, timeout=_LAST_RUNS_S)
        left = {each.name: each.waiting_for() for each in witnesses if each.waiting_for()}
        assert not hung, f"{name} stood still: no ending was seen of {left}"
    finally:
        for task in [*talks, *connections]:
            task.cancel()
        await asyncio.gather(*talks, *connections, return_exceptions=True)
    assert [each for witness in witnesses for each in witness.broken] == [], name
    assert meanwhile > 0, f"nothing began while {name} stood still"
    await chain.serving(name)
    for thoughts, users in ((LONG, speakers), (SHORT, others)):
        after = Unharmed(edge, chain.token, thoughts, f"{name} stood still")
        for each in users:
            await after.check_log(each)
    await asyncio.gather(*map(after.check_places, witnesses))


@pytest.mark.timeout(200)
async def test_a_start_that_its_user_was_refused_does_not_begin_when_the_engine_wakes_up(
    tmp_path: Path,
) -> None:
    users = [f"user-{index}" for index in range(4)]
    async with running_chain(tmp_path / "chain") as chain, contextlib.AsyncExitStack() as stack:

        async def connect(user: str) -> Socket:
            return await stack.enter_async_context(connected(chain.state.edge, chain.token(user)))

        first = await connect("first")  # so that the bridge has its streams to the engine
        await first.ending((await first.start("waits", "0"))["run"])
        sockets = [await connect(user) for user in users]
        engine = chain.pid("engine")
        os.kill(engine, signal.SIGSTOP)
        try:
            wanted = {"agent": "waits", "input": {"text": "600"}, "thread": "given-up"}
            starts = [each.error("start", **wanted) for each in sockets]
            errors = await asyncio.gather(*starts, asyncio.sleep(_GIVEN_UP_S))
        finally:
            os.kill(engine, signal.SIGCONT)
        assert {each["reason"] for each in errors if each} == {"CHAIN_DEGRADED"}, errors
        await asyncio.sleep(_AWAKE_S)
        for user in users:
            socket = await connect(user)
            assert (await socket.result("usage"))["active_runs"] == 0, user
            assert (await socket.error("thread", thread="given-up"))["code"] == "NOT_FOUND", user
