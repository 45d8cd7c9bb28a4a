"""Services that die under a run."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.e2e.chain import Chain, running_chain
from tests.e2e.sockets import ENDINGS, Closed, Frame, connected

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def own_chain(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chain]:
    """A chain whose processes this module kills."""
    async with running_chain(tmp_path_factory.mktemp("killed")) as running:
        yield running


@pytest.mark.parametrize("layer", ["emitter", "bridge", "engine", "nats"])
async def test_a_run_goes_on_when_a_service_is_killed(own_chain: Chain, layer: str) -> None:
    chain, token, thread = own_chain, own_chain.token(f"survivor-{layer}"), f"killed-{layer}"
    async with connected(chain.state.edge, token) as socket:
        started = await socket.start("steps", "150:20", thread=thread)
        await socket.event(started["run"], "agent_thinking")
        old = chain.pid(layer)
        os.kill(old, signal.SIGKILL)
        await chain.restarted(layer, old)
    events = await _everything(chain, token, thread, started["run"])
    thoughts = [e["data"]["text"] for e in events if e["type"] == "agent_thinking"]
    assert thoughts == [f"step {index}" for index in range(150)]
    assert [e["type"] for e in events if e["type"] in ENDINGS] == ["agent_completed"]
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    await _next_run_starts(chain, token, thread)


async def test_a_run_whose_agents_are_killed_ends_as_lost_or_begins_again(own_chain: Chain) -> None:
    chain, token = own_chain, own_chain.token("bereft")
    async with connected(chain.state.edge, token) as socket:
        started = await socket.start("waits", "600", thread="killed-agents")
        safe = await socket.start("persists", "600", thread="killed-safe")
        await socket.event(started["run"], "agent_thinking")
        await socket.event(safe["run"], "message_delta")
        old = chain.pid("agents")
        os.kill(old, signal.SIGKILL)
        await chain.restarted("agents", old)
        ending = await socket.ending(started["run"], timeout_s=60)
        again = await socket.ending(safe["run"], timeout_s=60)
        endings = [e for e in socket.run_events(started["run"]) if e["type"] in ENDINGS]
        events = socket.run_events(safe["run"])
    assert (ending["type"], ending["data"]["reason"]) == ("agent_failed", "AGENT_LOST")
    assert len(endings) == 1
    attempts = [e["data"]["attempt"] for e in events if e["type"] == "agent_started"]
    assert (attempts, again["type"]) == ([1, 2], "agent_completed")
    assert again["data"]["output"] == "attempt 2, begun 2 times"
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    messages = [e["data"]["message"] for e in events if e["type"] == "message_delta"]
    assert len(set(messages)) == len(messages) == 2, "an id is not used by two attempts"
    await _next_run_starts(chain, token, "killed-agents")


async def test_a_live_subscriber_misses_nothing_when_the_bridge_restarts(own_chain: Chain) -> None:
    chain, token = own_chain, own_chain.token("moved")
    async with connected(chain.state.edge, token) as socket:
        started = await socket.start("steps", "120:10", thread="moved")
        await socket.event(started["run"], "agent_thinking")
        old = chain.pid("bridge")
        os.kill(old, signal.SIGTERM)
        closing = await socket.wait_for(lambda f: f["op"] == "closing")
        assert closing["reconnect_after_ms"] >= 0
        assert await socket.closed() == 1012
        seen = socket.events("moved")
    await chain.restarted("bridge", old)
    async with asyncio.timeout(60):
        rest = await _rest(chain, token, "moved", seen[-1]["seq"], started)
    assert [e["seq"] for e in seen + rest] == list(range(1, len(seen + rest) + 1))
    assert rest[-1]["type"] == "agent_completed"


async def _everything(chain: Chain, token: str, thread: str, run: str) -> list[Frame]:
    """All of a thread's events, from a socket that joins again whenever the edge goes away."""
    async with asyncio.timeout(90):
        while True:
            try:
                async with connected(chain.state.edge, token) as socket:
                    await socket.result("subscribe", thread=thread, after=0)
                    await socket.ending(run, timeout_s=60)
                    return socket.run_events(run)
            except (OSError, Closed, AssertionError):
                await asyncio.sleep(0.2)


async def _rest(chain: Chain, token: str, thread: str, after: int, started: Frame) -> list[Frame]:
    while True:
        try:
            async with connected(chain.state.edge, token) as socket:
                await socket.result("subscribe", thread=thread, after=after, epoch=started["epoch"])
                await socket.ending(started["run"])
                return socket.events(thread)
        except (OSError, AssertionError):
            await asyncio.sleep(0.2)


async def _next_run_starts(chain: Chain, token: str, thread: str) -> None:
    """The user's place is free again: the next message in the thread is answered."""
    async with asyncio.timeout(60):
        while True:
            async with connected(chain.state.edge, token) as socket:
                reply = await socket.call(
                    "start", agent="echo", input={"text": "and now?"}, thread=thread
                )
                if "result" in reply:
                    ending = await socket.ending(reply["result"]["run"])
                    assert ending["type"] == "agent_completed"
                    return
                assert reply["error"]["code"] in ("UNAVAILABLE", "RESOURCE_EXHAUSTED"), reply
                await asyncio.sleep(0.3)
