"""Cancelling, and what is none."""

from __future__ import annotations

import pytest

from tests.e2e.chain import Chain
from tests.e2e.sockets import connected

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_cancel_stops_the_agent_and_answers_when_the_run_has_ended(chain: Chain) -> None:
    async with connected(chain.state.edge, chain.token("carl")) as socket:
        started = await socket.start("waits", "600", thread="cancelled")
        await socket.event(started["run"], "agent_thinking")
        await socket.result("cancel", run=started["run"])
        ending = await socket.ending(started["run"])
        again = await socket.call("cancel", run=started["run"])
    assert ending["type"] == "agent_cancelled"
    assert ending["data"]["reason"] == "USER"
    assert "result" in again


async def test_losing_the_socket_cancels_nothing_and_the_next_one_resumes(chain: Chain) -> None:
    token = chain.token("lost")
    async with connected(chain.state.edge, token) as socket:
        started = await socket.start("steps", "40:20", thread="resumed")
        await socket.event(started["run"], "agent_thinking")
        seen = socket.run_events(started["run"])
    async with connected(chain.state.edge, token) as socket:
        last = seen[-1]["seq"]
        await socket.result("subscribe", thread="resumed", after=last, epoch=started["epoch"])
        await socket.ending(started["run"])
        rest = socket.run_events(started["run"])
    seqs = [event["seq"] for event in seen + rest]
    assert seqs == list(range(1, len(seqs) + 1))
    assert [e["data"]["text"] for e in seen + rest if e["type"] == "agent_thinking"] == [
        f"step {index}" for index in range(40)
    ]
