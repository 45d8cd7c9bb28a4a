"""What a thread delivers, and to whom.

Invariant: an item never changes once it is made, and its JSON is rendered once, however many sockets
it goes to. A sink takes items of one principal, whose name stands on it and is compared before each write.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from factorychain._core.event_json import event_json, events_frame
from factorychain._core.ids import Principal
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain.types.v1.event_pb2 import Event


class ResetReason(StrEnum):
    """Why a client's position does not hold any more."""

    EPOCH_CHANGED = "EPOCH_CHANGED"
    """The thread's numbering has started anew."""
    LOG_EXPIRED = "LOG_EXPIRED"
    """Events after the position are older than the log keeps."""
    POSITION_UNKNOWN = "POSITION_UNKNOWN"
    """The thread has never been as far as the position."""


class StopReason(StrEnum):
    """Why a sink gets nothing more, and writes nothing more."""

    PRINCIPAL_MISMATCH = "PRINCIPAL_MISMATCH"
    """An item of somebody else was about to be written."""
    REPLAY_FAILED = "REPLAY_FAILED"
    """The history could not be read: whoever it is for starts over from its last seq."""
    SLOW_CONSUMER = "SLOW_CONSUMER"
    """Items come faster than they are taken."""


class Stored:
    """One batch as the log holds it. The object is shared by everybody who is delivered it."""

    __slots__ = ("batch", "last_seq", "previous", "size_bytes", "stream_seq", "trace", "whole")

    def __init__(
        self,
        stream_seq: int,
        previous: int | None,
        batch: LogBatch,
        size_bytes: int,
        trace: str = "",
    ) -> None:
        self.stream_seq = stream_seq
        self.previous = previous
        """Stream sequence of the message before it in the thread; None where it is not known."""
        self.batch = batch
        self.last_seq = batch.first_seq + len(batch.events) - 1
        self.size_bytes = size_bytes
        """Bytes that it takes in the log, for bounding what is kept."""
        self.trace = trace
        """W3C `traceparent` that came with the message."""
        self.whole = Events(batch, 0)
        """The item that delivers all of it."""

    def after(self, seq: int) -> Events:
        """The item that delivers what comes after `seq`."""
        skip = seq - self.batch.first_seq + 1
        return Events(self.batch, skip) if skip > 0 else self.whole


class Events:
    """Consecutive events of one run: a batch of the log, or the rest of one."""

    __slots__ = ("_json", "batch", "skip")

    def __init__(self, batch: LogBatch, skip: int) -> None:
        self.batch = batch
        self.skip = skip
        """How many events at the start of the batch are left out."""
        self._json: bytes | None = None

    @property
    def thread(self) -> str:
        return self.batch.thread

    @property
    def run(self) -> str:
        return self.batch.run

    @property
    def epoch(self) -> int:
        return self.batch.epoch

    @property
    def first_seq(self) -> int:
        return self.batch.first_seq + self.skip

    @property
    def last_seq(self) -> int:
        return self.batch.first_seq + len(self.batch.events) - 1

    @property
    def ends(self) -> bool:
        """Whether the last of the events is the run's ending."""
        return self.batch.ends

    @property
    def json(self) -> bytes:
        """The frame `{"op":"events",…}`; rendered at the first use."""
        if self._json is None:
            self._json = events_frame(
                self.thread, self.epoch, self.first_seq, self.run, self.events()
            )
        return self._json

    def events(self) -> list[Event]:
        """The events as they are in the log, without `seq` and `run`; not to be changed."""
        return list(self.batch.events[self.skip :] if self.skip else self.batch.events)

    def each(self) -> Iterator[tuple[int, str, bytes]]:
        """Seq, type and JSON of every event, for those who send them one by one."""
        for seq, event in enumerate(self.events(), self.first_seq):
            yield seq, event.WhichOneof("event") or "", event_json(event, seq, self.run)

    def __repr__(self) -> str:
        return f"Events({self.thread!r}, epoch={self.epoch}, {self.first_seq}..{self.last_seq})"


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """The sink has everything that there was when it subscribed."""

    thread: str
    seq: int
    """The thread's last seq then; 0 for an empty thread."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The sink's position does not hold; everything that there is follows."""

    thread: str
    epoch: int
    """The epoch that holds now; 0 while the thread has none."""
    reason: ResetReason


FeedItem = Events | CaughtUp | Reset


@dataclass(frozen=True, slots=True)
class SubscribedAt:
    """What a thread looked like when it was subscribed to."""

    first: int
    """Seq of the first event that is still there; 0 for an empty thread."""
    last: int
    """Seq of the last; 0 for an empty thread."""
    epoch: int
    """0 for an empty thread."""
    active_run: str
    """The run that had not ended; empty if there was none."""


class Sink(Protocol):
    """Where a thread's items go: one socket, one stream. All methods are called on the event loop."""

    @property
    def principal(self) -> Principal:
        """Whose it is, from a verified token."""

    def deliver(self, item: FeedItem) -> bool:
        """Queue the item, or refuse it because the queue is full.

        A refusal ends the subscription: the sink closes itself as too slow.
        """

    async def room(self) -> None:
        """Wait until at least half of the queue is free. Replay waits here before each batch."""

    def stop(self, why: StopReason) -> None:
        """Close at once; what waits is not written any more."""
