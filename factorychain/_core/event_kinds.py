"""What kinds of events there are and how much a user depends on each.

A kind is the name of a field of the `oneof` in `factorychain.types.v1.Event`
(`event.WhichOneof("event")`). Every kind has exactly one criticality: a kind that is added to the
proto without one fails at import, not in front of a user.
"""

from __future__ import annotations

from typing import Final

from factorychain.types.v1 import event_pb2
from factorychain.types.v1.event_pb2 import EventCriticality

KINDS: Final[frozenset[str]] = frozenset(
    field.name for field in event_pb2.Event.DESCRIPTOR.oneofs_by_name["event"].fields
)

ENDINGS: Final[frozenset[str]] = frozenset({"agent_completed", "agent_failed", "agent_cancelled"})
"""Every admitted run has exactly one of these, and nothing after it."""

LIFECYCLE: Final[frozenset[str]] = ENDINGS | {"run_queued", "agent_started"}
"""The frame of a run. A lifecycle event is never rejected for its size."""

ENGINE_LIFECYCLE: Final[frozenset[str]] = frozenset(
    {"run_queued", "agent_failed", "agent_cancelled"}
)
"""What a token of scope `lifecycle` may say: the engine settles runs, it never speaks for agents."""

DELTAS: Final[frozenset[str]] = frozenset({"message_delta", "thinking_delta"})
"""Streamed text, which may be merged within one message."""

MISSION_CRITICAL: Final[frozenset[str]] = ENDINGS | {
    "agent_started",
    "agent_thinking",
    "tool_executing",
    "tool_completed",
}
"""Never delayed by batching; the loss of one is reported at critical level."""

IMPORTANT: Final[frozenset[str]] = frozenset({"run_queued", "input_requested", "input_received"})

NORMAL: Final[frozenset[str]] = DELTAS | {"tool_progress", "custom"}

_CRITICALITY: Final[dict[str, EventCriticality.ValueType]] = {
    **dict.fromkeys(MISSION_CRITICAL, EventCriticality.EVENT_CRITICALITY_MISSION_CRITICAL),
    **dict.fromkeys(IMPORTANT, EventCriticality.EVENT_CRITICALITY_IMPORTANT),
    **dict.fromkeys(NORMAL, EventCriticality.EVENT_CRITICALITY_NORMAL),
}

if set(_CRITICALITY) != KINDS:
    unclear = sorted(KINDS.symmetric_difference(_CRITICALITY))
    raise ImportError(f"event_kinds.py gives no criticality to {unclear}; add them to one set")


def criticality(kind: str) -> EventCriticality.ValueType:
    """The criticality of a kind; an unknown one counts as mission-critical, so that it is heard."""
    return _CRITICALITY.get(kind, EventCriticality.EVENT_CRITICALITY_MISSION_CRITICAL)


def criticality_name(kind: str) -> str:
    """`mission_critical`, `important` or `normal`, for logs and metric labels."""
    name = EventCriticality.Name(criticality(kind))
    return name.removeprefix("EVENT_CRITICALITY_").lower()
