"""What an instance may say."""

from __future__ import annotations

from typing import Any

import pytest

from factorychain._instance import events
from factorychain._instance.ending import ending_event, started_event
from factorychain._instance.spec import Outcome, OutcomeKind, RunSpec
from factorychain._process.wire import BrokenFrame
from factorychain.types.v1.event_pb2 import Event, RunQueued
from factorychain_agents.process.checks import OPEN_CALLS_MAX, EventChecks

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-ffffffffffffffffffffffffffffffff-b7ad6b7169203331-01"
SPEC = RunSpec("acme", "ada", "t", "r", "five", 1, "{}", trace=TRACE)


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        (events.AGENT_THINKING, events.thinking(TRACE, "hm")),
        (events.TOOL_EXECUTING, events.tool_executing(TRACE, "c1", "look", "{}", "")),
        (events.TOOL_COMPLETED, events.tool_failed(TRACE, "c1", "look", "NO", "no", 1)),
        (events.TOOL_PROGRESS, events.tool_progress(TRACE, "c1", "1")),
        (events.MESSAGE_DELTA, events.message_delta(TRACE, "m1", "x")),
        (events.THINKING_DELTA, events.thinking_delta(TRACE, "m1", "x")),
        (events.CUSTOM, events.custom(TRACE, "mine", "{}")),
    ],
)
def test_what_the_sdk_says_passes(kind: int, event: bytes) -> None:
    EventChecks(TRACE).check(kind, event)


def ending() -> bytes:
    return ending_event(SPEC, Outcome(OutcomeKind.COMPLETED, "null"), 1.0)


def queued() -> bytes:
    return Event(run_queued=RunQueued(position=1), trace=TRACE).SerializeToString()


def number(name: str) -> Any:
    return Event.DESCRIPTOR.fields_by_name[name].number


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        (number("agent_completed"), ending()),
        (events.AGENT_THINKING, ending()),
        (number("agent_started"), started_event(SPEC)),
        (number("run_queued"), queued()),
        (events.AGENT_THINKING, queued()),
        (events.AGENT_THINKING, events.custom(TRACE, "mine", "{}")),
        (events.AGENT_THINKING, events.thinking(OTHER, "in another trace")),
        (events.AGENT_THINKING, b"\xff\xff\xff"),
        (events.AGENT_THINKING, b""),
        (0, events.thinking(TRACE, "hm")),
        (2**31, events.thinking(TRACE, "hm")),
    ],
)
def test_lifecycle_events_and_what_is_none_do_not_pass(kind: int, event: bytes) -> None:
    with pytest.raises(BrokenFrame):
        EventChecks(TRACE).check(kind, event)


def test_no_more_calls_are_open_than_any_agent_needs() -> None:
    checks = EventChecks(TRACE)

    def begin(call: str) -> None:
        event = events.tool_executing(TRACE, call, "look", "{}", "")
        checks.check(events.TOOL_EXECUTING, event)

    for number in range(OPEN_CALLS_MAX):
        begin(f"c{number}")
    done = events.tool_failed(TRACE, "c1", "look", "NO", "no", 1)
    checks.check(events.TOOL_COMPLETED, done)
    begin("another")
    with pytest.raises(BrokenFrame, match="open at once"):
        begin("one too many")
