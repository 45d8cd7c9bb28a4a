"""Questions that agents have asked, when the processes die that they went through."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from factorychain._core.ids import Principal, resumed_run_id
from tests.e2e.chain import Chain, running_chain
from tests.e2e.sockets import Closed, Frame, Socket, asked, connected

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def brief(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chain]:
    """A chain whose runs may take three seconds, and whose services this module kills."""
    env = {"FACTORYCHAIN_RUN_LIFETIME_S": "3", "FACTORYCHAIN_CLEANUP_INTERVAL_S": "0.2"}
    async with running_chain(tmp_path_factory.mktemp("brief"), env=env) as running:
        yield running


async def test_questions_outlive_the_lifetime_of_their_run_and_the_death_of_every_process(
    brief: Chain,
) -> None:
    """A run that waits for its user lives in its agents; one that ended with requests in none."""
    async with connected(brief.state.edge, brief.token("ann")) as ann:
        stopped = await _stopped(ann, "stopped")
        half = await _stopped(ann, "half")
        await ann.result("respond", run=half, request="city", value="Bari")
        run = (await ann.start("asks", "number", thread="long"))["run"]
        await asked(ann, run)
        late = await ann.start("asks", "late", thread="late")
        await asked(ann, late["run"])
        for layer in ("engine", "emitter", "bridge"):
            await _killed(brief, layer)
        await ann.closed()  # with its bridge
    async with _joined_again(brief, "ann", "long", "late", "stopped", "half") as ann:
        # Longer than the lifetime of the first one.
        assert (await ann.ending(late["run"]))["data"]["output"] == "nobody answered"
        received = next(e for e in ann.run_events(late["run"]) if e["type"] == "input_received")
        assert received["data"]["closed"] == "EXPIRED"
        assert [each["type"] for each in ann.run_events(run)][-1] == "input_requested"
        reply = await _answered(ann, run, "q1", 3)
        assert reply["run"] == run
        assert (await ann.ending(run))["data"]["output"] == 3
        await _killed(brief, "agents")
        first = await _answered(ann, stopped, "city", "Turin")
        assert (first["run"], first["open"]) == (stopped, ["sure"])
        for asking, city in ((stopped, "Turin"), (half, "Bari")):
            await _goes_on(ann, asking, city)


async def _stopped(ann: Socket, thread: str) -> str:
    """A run that has ended with requests."""
    run: str = (await ann.start("asks", "stop", thread=thread))["run"]
    assert len((await ann.ending(run))["data"]["pending"]) == 2
    return run


async def _killed(chain: Chain, layer: str) -> None:
    old = chain.pid(layer)
    os.kill(old, signal.SIGKILL)
    await chain.restarted(layer, old)


async def _goes_on(ann: Socket, asking: str, city: str) -> None:
    """The last answer of a run that ended with requests starts the next one, which has all of them."""
    last = await _answered(ann, asking, "sure", True)
    assert last["run"] == resumed_run_id(Principal("default", "ann"), asking)
    output = (await ann.ending(last["run"]))["data"]["output"]
    assert output["answers"] == {"city": city, "sure": True}
    for run in (asking, last["run"]):
        assert [e["type"] for e in ann.run_events(run)] == ["agent_started", "agent_completed"]


@contextlib.asynccontextmanager
async def _joined_again(chain: Chain, user: str, *threads: str) -> AsyncIterator[Socket]:
    """A socket that has joined threads from their beginning on, once the new edge serves."""
    async with contextlib.AsyncExitStack() as stack:
        async with asyncio.timeout(60):
            while True:
                try:
                    socket = await stack.enter_async_context(
                        connected(chain.state.edge, chain.token(user))
                    )
                    for each in threads:
                        await socket.result("subscribe", thread=each, after=0)
                    break
                except (OSError, Closed, AssertionError):
                    await stack.aclose()
                    await asyncio.sleep(0.2)
        yield socket


async def _answered(socket: Socket, run: str, request: str, value: object) -> Frame:
    """The reply to an answer, once engine and agents serve again."""
    while True:
        reply = await socket.call("respond", run=run, request=request, value=value)
        if "result" in reply:
            result: Frame = reply["result"]
            return result
        if reply["error"]["code"] != "UNAVAILABLE":
            raise AssertionError(reply)
