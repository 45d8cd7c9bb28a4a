"""A user sees a run happen, live and in order, and every layer tells of it in one trace."""

from __future__ import annotations

import asyncio

import pytest

from factorychain.local.trace_sink import ExportedSpan, TraceSink
from tests.e2e.chain import Chain
from tests.e2e.sockets import connected

pytestmark = pytest.mark.asyncio(loop_scope="session")

FIVE = ["agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed"]
SERVICES = {f"factorychain-{layer}" for layer in ("engine", "agents", "emitter", "bridge")}


async def test_the_five_events_arrive_in_order_and_end_once(chain: Chain) -> None:
    async with connected(chain.state.edge, chain.token("ada")) as socket:
        started = await socket.start("echo", "hello", thread="five", metadata={"k": 1})
        ending = await socket.ending(started["run"])
        events = socket.run_events(started["run"])
    assert [e["type"] for e in events if e["type"] in FIVE] == FIVE
    assert [e["type"] for e in events].count("agent_completed") == 1
    assert events[-1] == ending
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    assert started["after"] == 0
    assert events[0]["data"] == {
        "agent": "echo", "input": {"text": "hello"}, "metadata": {"k": 1}, "attempt": 1
    }  # fmt: skip
    assert ending["data"]["output"] == "hello"


async def test_the_reply_precedes_the_runs_events(chain: Chain) -> None:
    async with connected(chain.state.edge, chain.token("ada")) as socket:
        for index in range(20):
            started = await socket.start("echo", "hi", thread=f"order-{index}")
            await socket.ending(started["run"])
        kinds = [
            (frame["op"], frame.get("thread") or frame["result"]["thread"])
            for frame in socket.frames
            if frame["op"] in ("reply", "events")
        ]
    for index in range(20):
        of_thread = [op for op, thread in kinds if thread == f"order-{index}"]
        assert of_thread[0] == "reply"
        assert "events" in of_thread


async def test_an_agent_with_a_bug_ends_as_failed_and_says_nothing_of_its_code(
    chain: Chain,
) -> None:
    async with connected(chain.state.edge, chain.token("ada")) as socket:
        started = await socket.start("breaks", "x", thread="bug")
        ending = await socket.ending(started["run"])
        texts = "".join(socket.texts)
    assert ending["type"] == "agent_failed"
    assert started["run"] in ending["data"]["message"]
    assert "a secret of the code" not in texts
    assert "a secret of the code" in chain.log()


async def test_one_trace_covers_every_layer_without_an_orphan(
    chain: Chain, traces: TraceSink
) -> None:
    async with connected(chain.state.edge, chain.token("tracy")) as socket:
        started = await socket.start("echo", "hello", thread="traced")
        ending = await socket.ending(started["run"])
        events = socket.run_events(started["run"])
    trace_id = ending["trace"].split("-")[1]
    assert {event["trace"].split("-")[1] for event in events} == {trace_id}
    spans = await _settled(traces, trace_id)
    assert {span.service for span in spans} == SERVICES
    known = {span.span_id for span in spans}
    orphans = [s for s in spans if s.parent_span_id and s.parent_span_id not in known]
    roots = [s for s in spans if not s.parent_span_id]
    assert orphans == []
    assert len(roots) == 1, roots
    assert any(span.name.startswith("invoke_agent") for span in spans)
    assert any(span.name.startswith("execute_tool") for span in spans)


async def _settled(traces: TraceSink, trace_id: str) -> list[ExportedSpan]:
    """The spans of a trace once every service has exported and no parent is missing, or after 10 s."""
    for _ in range(100):
        spans = traces.of_trace(trace_id)
        known = {span.span_id for span in spans}
        whole = all(not s.parent_span_id or s.parent_span_id in known for s in spans)
        if {span.service for span in spans} == SERVICES and whole:
            # A little longer, so that a late span without its parent would be seen.
            await asyncio.sleep(0.6)
            return traces.of_trace(trace_id)
        await asyncio.sleep(0.1)
    return traces.of_trace(trace_id)
