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


class EventChecks:
    """Checks what one run's instance says."""

    def __init__(self, trace: str) -> None:
        """`trace` is the run's `traceparent`."""
        self._trace_id = trace.split("-")[1:2]
        self._open: set[str] = set()

    def check(self, kind: int, data: bytes) -> None:
        """Whether this is an event that an instance may say.

        Args:
            kind: the event's kind as the instance names it.
            data: the serialized event.

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
        if event.trace.split("-")[1:2] != self._trace_id:
            raise BrokenFrame("the event is of another trace")
        self._count(event)

    def _count(self, event: Event) -> None:
        if event.HasField("tool_completed"):
            self._open.discard(event.tool_completed.call)
        elif event.HasField("tool_executing"):
            self._open.add(event.tool_executing.call)
            if len(self._open) > OPEN_CALLS_MAX:
                raise BrokenFrame(f"more than {OPEN_CALLS_MAX} calls are open at once")
