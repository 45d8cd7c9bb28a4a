"""Every kind of event has its place."""

from __future__ import annotations

from factorychain._core import event_kinds
from factorychain.types.v1.event_pb2 import EventCriticality


def test_the_five_and_all_endings_are_mission_critical() -> None:
    five = {
        "agent_started",
        "agent_thinking",
        "tool_executing",
        "tool_completed",
        "agent_completed",
    }
    assert five | event_kinds.ENDINGS == event_kinds.MISSION_CRITICAL


def test_every_kind_has_one_criticality() -> None:
    groups = (event_kinds.MISSION_CRITICAL, event_kinds.IMPORTANT, event_kinds.NORMAL)
    assert sorted(kind for group in groups for kind in group) == sorted(event_kinds.KINDS)


def test_a_kind_that_nobody_knows_is_heard() -> None:
    critical = EventCriticality.EVENT_CRITICALITY_MISSION_CRITICAL
    assert event_kinds.criticality("from_the_future") == critical
    assert event_kinds.criticality_name("message_delta") == "normal"
