"""Numbering, open calls, spans."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from factorychain._core import tracing
from factorychain._core.tracing import ChainSpan
from factorychain._instance import events
from factorychain._instance.spec import RunSpec, SpanRecord
from factorychain.errors import EventRejected, RunEnded
from factorychain_agents.host import EVENT_MAX_BYTES, InstanceHost, export
from tests.silent_host import SilentConversation

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


SPEC = RunSpec("acme", "ada", "t1", "r1", "quiet", 1, "{}", trace=TRACE)


class Link:
    """Keeps what is sent."""

    durable_run_seq = 0
    has_room = True

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.opened: list[str] = []
        self.closed: list[str] = []

    def offer(self, run_seq: int, events: Sequence[bytes], *, closes_call: str = "") -> None:
        self.sent.append(run_seq)
        self.closed += [closes_call] if closes_call else []

    async def send(
        self, event: bytes, run_seq: int, *, opens_call: str = "", closes_call: str = ""
    ) -> None:
        self.sent.append(run_seq)
        self.opened += [opens_call] if opens_call else []
        self.closed += [closes_call] if closes_call else []

    async def wait_ended(self) -> None: ...

    def renew(self, token: str) -> None: ...

    async def close(self) -> None: ...


async def test_events_are_numbered_densely_from_one() -> None:
    link = Link()
    host = InstanceHost(link, SilentConversation(), SPEC)
    host.begin(b"")
    for _ in range(3):
        await host.emit(events.AGENT_THINKING, events.thinking(TRACE, "x"))
    await host.say(b"")
    assert link.sent == [1, 2, 3, 4, 5]


async def test_a_delta_that_may_be_held_back_is_not_owed_but_what_comes_behind_it_is() -> None:
    link = Link()
    host = InstanceHost(link, SilentConversation(), SPEC)
    host.begin(b"")
    owed = [host.owed]
    link.durable_run_seq = 1
    owed.append(host.owed)
    await host.emit(events.MESSAGE_DELTA, b"")
    owed.append(host.owed)
    link.has_room = False  # no more than a window is held back
    owed.append(host.owed)
    link.has_room = True
    await host.emit(events.AGENT_THINKING, events.thinking(TRACE, "x"))
    owed.append(host.owed)
    link.durable_run_seq = 3
    owed.append(host.owed)
    assert owed == [True, False, False, True, True, False]


async def test_what_no_emitter_takes_is_not_even_sent() -> None:
    link = Link()
    host = InstanceHost(link, SilentConversation(), SPEC)
    host.begin(b"")
    for say in (events.thinking(TRACE, "x" * EVENT_MAX_BYTES), b"x" * (EVENT_MAX_BYTES + 1)):
        with pytest.raises(EventRejected):
            await host.emit(events.TOOL_COMPLETED, say)
    await host.emit(events.AGENT_THINKING, events.thinking(TRACE, "x"))
    assert link.sent == [1, 2]


async def test_open_calls_are_known_and_told_to_the_link() -> None:
    link = Link()
    host = InstanceHost(link, SilentConversation(), SPEC)
    host.begin(b"")
    for call in ("c1", "c2"):
        event = events.tool_executing(TRACE, call, "search", "{}", "")
        await host.emit(events.TOOL_EXECUTING, event)
    done = events.tool_succeeded(TRACE, "c1", "search", "1", 0, truncated=False)
    await host.emit(events.TOOL_COMPLETED, done)
    assert host.open_calls == {"c2": "search"}
    assert (link.opened, link.closed) == (["c1", "c2"], ["c1"])


async def test_after_the_end_the_agent_can_say_nothing() -> None:
    link = Link()
    host = InstanceHost(link, SilentConversation(), SPEC)
    host.closed = True
    with pytest.raises(RunEnded):
        await host.emit(events.AGENT_THINKING, events.thinking(TRACE, "x"))
    assert link.sent == []


async def test_an_agent_that_only_speaks_lets_others_run() -> None:
    host = InstanceHost(Link(), SilentConversation(), SPEC)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for _ in range(320):
        await host.emit(events.AGENT_THINKING, events.thinking(TRACE, "x"))
    task.cancel()
    assert turns >= 10


def test_a_span_that_was_finished_elsewhere_is_exported_as_it_was() -> None:
    seen: list[ChainSpan] = []

    class Sink:
        def sampled(self, *_: object) -> bool:
            return True

        def ended(self, span: ChainSpan) -> None:
            seen.append(span)

    own = "00-0af7651916cd43dd8448eb211c80319c-00000000000000aa-01"
    tracing.set_sink(Sink())
    try:
        export(SpanRecord("execute_tool x", own, "b7ad6b7169203331", 5, 9, (("k", "v"),), "NO_ROW"))
        export(SpanRecord("unreadable", "", "", 0, 0))
    finally:
        tracing.set_sink(None)
    (span,) = seen
    assert span.traceparent == own
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert (span.start_ns, span.end_ns, span.fault) == (5, 9, "NO_ROW")
    assert span.attributes == {"k": "v", "error.type": "NO_ROW"}
