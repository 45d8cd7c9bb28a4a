"""Two pieces of one text as one event, when a run says more than it may at once.

Pure. Invariant: what a client shows is the same text, of the same message, from the same place in the run;
anything else stays as it is.
"""

from __future__ import annotations

from typing import Final

from factorychain._instance.events import MESSAGE_DELTA, THINKING_DELTA
from factorychain.types.v1.event_pb2 import Event, MessageDelta, ThinkingDelta

MERGED_MAX_BYTES: Final = 16 * 1024


class Deltas:
    """Deltas that are joined as they come, beginning with one."""

    def __init__(self, kind: int, event: bytes) -> None:
        self._kind = kind
        self._event = event
        self._merged: Event | None = None
        self._bytes = len(event)

    def add(self, kind: int, event: bytes) -> bool:
        """Join the next one; False if it belongs to something else, or would make this too large."""
        if kind != self._kind or kind not in {MESSAGE_DELTA, THINKING_DELTA}:
            return False
        if self._bytes + len(event) > MERGED_MAX_BYTES:
            return False
        first = self._merged or Event.FromString(self._event)
        following = Event.FromString(event)
        one, other = _delta(first), _delta(following)
        if one.message != other.message or first.path != following.path:
            return False
        if first.trace != following.trace:
            return False
        one.text += other.text
        self._merged = first
        self._bytes += len(event)
        return True

    def event(self) -> bytes:
        """The one event."""
        return self._event if self._merged is None else self._merged.SerializeToString()


def _delta(event: Event) -> MessageDelta | ThinkingDelta:
    if event.HasField("message_delta"):
        return event.message_delta
    return event.thinking_delta
