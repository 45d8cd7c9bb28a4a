"""What is known of the log's streams, and what of it was lost. No I/O: told what was seen, it decides.

Invariant: a loss is told once, and nothing that goes by itself is one. A stream's messages go by age or by
size, the oldest first; so a stream was purged if an event that was seen in it is gone before its age, and
size does not explain it. Some of the events that were the newest at a look are remembered, spread over the
age at which events go: the oldest of them tells that everything behind it is there, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from factorychain._core.stored import StreamContents

JUDGED_UNTIL_AGE: Final = 0.9
"""Of the age at which events go. The server that drops them has a clock of its own."""
REMEMBERED: Final = 32
"""So many events of a stream, beside the newest."""


class Loss(StrEnum):
    """How a stream's contents were lost."""

    DELETED = "deleted"
    PURGED = "purged"


class _Event(NamedTuple):
    seq: int
    at_s: float


@dataclass(slots=True)
class _Shard:
    created: str
    last_seq: int
    events: list[_Event] = field(default_factory=list)
    """Those that are remembered, the newest that was seen last."""
    missed: bool = False
    """One of them was gone at the last look."""

    def forget_until(self, at_s: float) -> None:
        """Those of that time, and before, may go."""
        self.events = [each for each in self.events if each.at_s > at_s]

    def forget_below(self, seq: int) -> None:
        """Those before it are gone for want of room."""
        self.events = [each for each in self.events if each.seq >= seq]

    def remember(self, event: _Event, apart_s: float) -> None:
        """The newest; the one before it stays if it is so far apart from its own predecessor."""
        if len(self.events) > 1 and self.events[-1].at_s - self.events[-2].at_s < apart_s:
            del self.events[-1]
        self.events.append(event)


class LogState:
    """All streams of the log, by name."""

    def __init__(self, max_age_s: float, max_bytes: int) -> None:
        """`max_bytes` of one stream; -1: any."""
        self._judged_s = max_age_s * JUDGED_UNTIL_AGE
        self._max_bytes = max_bytes
        self._shards: dict[str, _Shard] = {}

    def knows(self, stream: str) -> bool:
        """Whether it was seen before, and not missed since."""
        return stream in self._shards

    def is_news(self, stream: str, contents: StreamContents) -> bool:
        """Whether something was stored since the last look."""
        shard = self._shards.get(stream)
        return (
            shard is None
            or shard.created != contents.created
            or shard.last_seq != contents.last_seq
        )

    def missing(self, stream: str) -> Loss | None:
        """There is no such stream; a loss if there was one."""
        return Loss.DELETED if self._shards.pop(stream, None) else None

    def seen(
        self, stream: str, contents: StreamContents, now_s: float, *, ends_in_event: bool
    ) -> Loss | None:
        """What is in a stream. `ends_in_event`: its last message is one that goes only by age or size; not
        asked for unless there is news.
        """
        before = self._shards.get(stream)
        loss = None if before is None else self._loss(before, contents, now_s)
        if before is None or loss is not None:
            before = self._shards[stream] = _Shard(contents.created, 0)
        elif before.missed:
            return None  # what it held stays what the next look is compared with
        if ends_in_event and contents.messages and before.last_seq != contents.last_seq:
            event = _Event(contents.last_seq, contents.last_at_s)
            before.remember(event, self._judged_s / REMEMBERED)
        before.last_seq = contents.last_seq
        return loss

    def _loss(self, before: _Shard, now: StreamContents, now_s: float) -> Loss | None:
        if before.created != now.created:
            return Loss.DELETED
        if not self._is_missed(before, now, now_s):
            before.missed = False
            return None
        # What is seen twice is so: a server that has just become the leader may be behind at first.
        was_missed, before.missed = before.missed, True
        return Loss.PURGED if was_missed else None

    def _is_missed(self, before: _Shard, now: StreamContents, now_s: float) -> bool:
        before.forget_until(now_s - self._judged_s)
        if not before.events:
            return False
        if before.events[0].seq >= now.first_seq and before.events[-1].seq <= now.last_seq:
            return False
        # What discards its oldest stays nearly as large as it may be.
        if not now.messages or self._max_bytes < 0 or now.size_bytes < self._max_bytes / 2:
            return True
        before.forget_below(now.first_seq)
        return False
