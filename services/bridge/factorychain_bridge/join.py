"""Joining a thread: from any position to live, without a gap and without a repeat.

Live batches are kept while it is not known where the client stands and while history is read; then
they are drained. Input in, items out, no I/O: the feed reads the log and tells what it found.

Invariant: the items that come out, events taken in order, are exactly the thread's events after the
position of the client; where that cannot be, and only there, a reset comes first and then everything
that there is. Who subscribes is told once that it has caught up. What is kept is bounded; polls and reads
alone bring everything, whatever was lost live.
A batch counts by the dense `seq` of its events, so a lost live message shows as a gap and is read again,
and one that arrives twice (from history and live) is delivered once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

from factorychain_bridge.items import CaughtUp, FeedItem, Reset, ResetReason, Stored


@dataclass(frozen=True, slots=True)
class LogEnd:
    """What a read of the leader says about a thread that has something in it."""

    first_seq: int
    stream_seq: int
    """Of the last message."""
    seq: int
    """Of the last event."""
    epoch: int
    active_run: str = ""
    """The run of the last event, if that is not its ending."""


@dataclass(frozen=True, slots=True)
class Read:
    """History to be read: messages with a stream sequence in (after, upto]."""

    after: int
    upto: int


class Stage(Enum):
    """How far a join has come."""

    WAITING = auto()
    """Nobody has said yet from where."""
    READING = auto()
    """History is being read, live batches are kept."""
    LIVE = auto()
    """Live batches go through."""


class Join:
    """One subscription's way into a thread."""

    def __init__(self, thread: str, buffer_max_bytes: int) -> None:
        self._thread = thread
        self._buffer_max_bytes = buffer_max_bytes
        self._buffer: deque[Stored] = deque()
        self._buffered_bytes = 0
        self._dropped_upto = 0  # highest stream sequence that did not fit into the buffer
        self._caught_up_due = False
        self._read: Read | None = None
        self.stage = Stage.WAITING
        self.seq = 0
        """Seq of the last event that came out, or that the client had."""
        self.epoch = 0
        """0: any."""
        self.stream_seq = 0
        """The log is known up to here; 0: not known."""

    @property
    def read(self) -> Read | None:
        """What the feed has to read now; None: nothing."""
        return self._read

    @property
    def buffered_bytes(self) -> int:
        return self._buffered_bytes

    # --- beginning -----------------------------------------------------------------------------

    def start(self, after: int, epoch: int, end: LogEnd | None) -> list[FeedItem]:
        """The client has everything up to `after` of `epoch` (0: not said); the log ends at `end`."""
        self._caught_up_due = True
        if end is None:
            return self._start_empty(after, epoch)
        self.seq, self.epoch = after, end.epoch
        reason = _why_not(after, epoch, end)
        items: list[FeedItem] = []
        if reason is not None:
            self.seq = end.first_seq - 1
            items.append(Reset(self._thread, end.epoch, reason))
        if self.seq == end.seq:
            self.stream_seq = end.stream_seq
            return items + self._go_live()
        self._begin_read(end.stream_seq)
        return items

    def start_here(self, after: int, epoch: int) -> list[FeedItem]:
        """The engine has just said that the thread stands at `after`: there is nothing to compare."""
        self.seq, self.epoch = after, epoch
        return self._go_live()

    def _start_empty(self, after: int, epoch: int) -> list[FeedItem]:
        if after == 0:
            self.epoch = epoch
            return self._go_live()
        return [Reset(self._thread, 0, ResetReason.LOG_EXPIRED), *self._go_live()]

    # --- what arrives --------------------------------------------------------------------------

    def on_live(self, stored: Stored) -> list[FeedItem]:
        """A live message; in the order of the log, some may be missing or come twice."""
        if self.stage is Stage.LIVE:
            return self._take_live(stored)
        self._keep(stored)
        return []

    def on_history(self, stored: Stored) -> list[FeedItem]:
        """A message of the read in hand, in order. What the log does not have any more is gone."""
        if stored.stream_seq <= self.stream_seq:
            return []
        self.stream_seq = stored.stream_seq
        first_seq, epoch = stored.batch.first_seq, stored.batch.epoch
        if self.epoch not in (0, epoch):
            return self._anew(stored, ResetReason.EPOCH_CHANGED)
        if first_seq > self.seq + 1:
            return self._anew(stored, ResetReason.LOG_EXPIRED)
        return self._deliver(stored)

    def on_read_done(self) -> list[FeedItem]:
        """Everything of the read in hand has been given to `on_history`."""
        read, self._read = self._read, None
        if read is not None:
            self.stream_seq = max(self.stream_seq, read.upto)
        return self._go_live()

    def on_end(self, end: LogEnd) -> None:
        """A poll of the leader: if a live message was lost, its batch has to be read."""
        if self.stage is Stage.READING:
            self._expect(end.stream_seq)
        elif self.stage is Stage.LIVE and self.stream_seq < end.stream_seq:
            if self.epoch == end.epoch and self.seq >= end.seq:
                self.stream_seq = end.stream_seq
            else:
                self._begin_read(end.stream_seq)

    def _expect(self, stream_seq: int) -> None:
        """While history is read: what lies beyond it and was not heard live is read after it."""
        heard = self._buffer[-1].stream_seq if self._buffer else 0
        known = max(heard, self._dropped_upto, self._read.upto if self._read else 0)
        if stream_seq > known:
            self._dropped_upto = stream_seq

    # --- steps ---------------------------------------------------------------------------------

    def _go_live(self) -> list[FeedItem]:
        items: list[FeedItem] = []
        if self._caught_up_due:
            self._caught_up_due = False
            items.append(CaughtUp(self._thread, self.seq))
        dropped_upto, self._dropped_upto = self._dropped_upto, 0
        if dropped_upto > self.stream_seq:
            self._buffer.clear()  # all of it is read again
            self._buffered_bytes = 0
            self._begin_read(dropped_upto)
            return items
        self.stage = Stage.LIVE
        while self._buffer and self.stage is Stage.LIVE:
            stored = self._buffer.popleft()
            self._buffered_bytes -= stored.size_bytes
            items += self._take_live(stored)
        return items

    def _take_live(self, stored: Stored) -> list[FeedItem]:
        if stored.stream_seq <= self.stream_seq:
            return []
        if self._is_gap(stored):
            self._begin_read(stored.stream_seq)
            return []
        self.stream_seq = stored.stream_seq
        if self.epoch not in (0, stored.batch.epoch):
            return self._anew(stored, ResetReason.EPOCH_CHANGED)
        return self._deliver(stored)

    def _is_gap(self, stored: Stored) -> bool:
        first_seq, previous = stored.batch.first_seq, stored.previous
        if previous is not None and self.stream_seq and previous > self.stream_seq:
            return True
        if self.epoch not in (0, stored.batch.epoch):
            return first_seq != 1  # else the new numbering starts with this very batch
        return first_seq > self.seq + 1

    def _deliver(self, stored: Stored) -> list[FeedItem]:
        self.epoch = stored.batch.epoch
        if stored.last_seq <= self.seq:
            return []
        item = stored.after(self.seq)
        self.seq = stored.last_seq
        return [item]

    def _anew(self, stored: Stored, reason: ResetReason) -> list[FeedItem]:
        self.seq = stored.batch.first_seq - 1
        return [Reset(self._thread, stored.batch.epoch, reason), *self._deliver(stored)]

    def _begin_read(self, upto: int) -> None:
        self._read = Read(self.stream_seq, upto)
        self.stage = Stage.READING

    def _keep(self, stored: Stored) -> None:
        # What does not fit is read from the log later: memory stays bounded, nothing is lost. Once
        # something was dropped everything after it is too, so that the buffer has no hole.
        if self._dropped_upto or self._buffered_bytes + stored.size_bytes > self._buffer_max_bytes:
            self._dropped_upto = stored.stream_seq
            return
        self._buffer.append(stored)
        self._buffered_bytes += stored.size_bytes


def _why_not(after: int, epoch: int, end: LogEnd) -> ResetReason | None:
    if epoch not in (0, end.epoch):
        return ResetReason.EPOCH_CHANGED
    if after > end.seq:
        return ResetReason.POSITION_UNKNOWN
    if after < end.first_seq - 1:
        return ResetReason.LOG_EXPIRED
    return None
