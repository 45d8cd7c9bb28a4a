"""What an instance may say: checked here, since what runs in its process can write anything.

Invariant: what passes is one event of a kind that an agent's code may say, in its own run's trace, and
its tool calls are as few as any agent needs open at once. That it has the right form inside, and its
order, is the emitter's to check.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from factorychain._instance import events
from factorychain._process.wire import BrokenFrame
from factorychain.types.v1.event_pb2 import Event

OPEN_CALLS_MAX: Final = 1000
_SAYABLE: Final = frozenset(
    {
        events.AGENT_THINKING,
        events.TOOL_EXECUTING,
        events.TOOL_COMPLETED,
        events.TOOL_PROGRESS,
        events.MESSAGE_DELTA,
        events.THINKING_DELTA,
        events.CUSTOM,
    }
)
_NUMBERS: Final = {
    each.name: each.number for each in Event.DESCRIPTOR.oneofs_by_name["event"].fields
}


def check_event(kind: int, data: bytes, trace: str) -> None:
    """Whether this is an event that an instance may say.

    Args:
        kind: the event's kind as the instance names it.
        data: the serialized event.
        trace: the run's `traceparent`.

    Raises:
        BrokenFrame: it is not.
    """
    if kind not in _SAYABLE:
        raise BrokenFrame(f"an agent does not say events of kind {kind}")
    try:
        event = Event.FromString(data)
    except DecodeError as error:
        raise BrokenFrame("this is no event") from error
    if _NUMBERS.get(event.WhichOneof("event") or "") != kind:
        raise BrokenFrame(f"the event is not of kind {kind}")
    if event.trace.split("-")[1:2] != trace.split("-")[1:2]:
        raise BrokenFrame("the event is of another trace")
