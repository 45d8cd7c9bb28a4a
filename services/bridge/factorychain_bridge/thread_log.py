"""What one run's writer puts into its thread's log, and what it makes of every answer. No I/O.

Events wait here as they came until they are known to be stored. A batch of the first of them is appended
at a time; every append names the message that must still be the thread's last. After anything but
success the log is read forward from the last known position and compared by `run_seq` before another
append.

Invariants: an event is stored exactly once and in order, however many answers are lost and however
many writers compete; nothing of a run is stored after its ending or after a later attempt has begun;
what has one `run_seq` is stored in one batch or not at all; that a run waits is never stored after it has
begun, nor after a better position.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Protocol

from factorychain._core.execution_context import Scope, UserExecutionContext
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain.types.v1.event_pb2 import Event
from factorychain_bridge.batches import (
    Append,
    Entry,
    Position,
    Unfit,
    build,
    first_entries,
    read_entry,
)


class Outcome(Protocol):
    """Hears what becomes of a run's events. Called synchronously; must not block or raise."""

    def opened(self, durable_run_seq: int) -> None:
        """Everything up to here is in the log; what comes after may be sent."""

    def acknowledged(self, durable_run_seq: int, ended: bool) -> None:
        """Everything up to here is in the log, or was rejected."""

    def rejected(self, run_seq: int, reason: str, message: str) -> None:
        """One event cannot be stored; the run goes on without it."""

    def refused(self, reason: str, message: str, retryable: bool) -> None:
        """This writer is over; with `retryable` another opening of the run may go on."""


@dataclass(frozen=True, slots=True)
class ReadForward:
    """The log has to be read from the leader: everything after a stream sequence."""

    after: int


class ThreadLog:
    """The writer of one run, for one opening of it."""

    def __init__(
        self,
        context: UserExecutionContext,
        outcome: Outcome,
        *,
        resumed: bool,
        batch_max_bytes: int,
        now_ms: Callable[[], int],
    ) -> None:
        """A run that is new here trusts the position in its token, so that its first append needs no
        read: if anything has come since, the append fails and the log is read after all.
        """
        self._context = context
        self._outcome = outcome
        self._batch_max_bytes = batch_max_bytes
        self._now_ms = now_ms
        epoch = context.base_epoch or now_ms()
        self._position = Position(context.base, context.base_seq, epoch)
        self._pending: deque[Entry] = deque()
        self._in_flight: Append | None = None
        self._already: list[Event] = []  # lifecycle events that were stored before this opening
        self._position_said: int | None = None  # the run's best in the log; 0: it has begun
        self._must_read = resumed
        self._opening = resumed
        self._last_run_seq = 0  # highest that was taken
        self.durable_run_seq = 0
        self.ended = False
        self.over = False
        """Nothing more is taken or stored by this writer."""
        if not resumed:
            outcome.opened(0)

    @property
    def pending(self) -> int:
        """Pieces that are not known to be stored."""
        return len(self._pending)

    # --- events --------------------------------------------------------------------------------

    def add(self, events: Iterable[tuple[int, bytes]]) -> None:
        """Take events, as (run_seq, serialized event). Neighbours with one run_seq are one piece."""
        if self.over:
            return
        if self._context.scope is Scope.LIFECYCLE:
            for run_seq, data in events:
                self._take(run_seq, [data])
            return
        for run_seq, piece in groupby(events, itemgetter(0)):
            self._take(run_seq, [data for _, data in piece])

    def _take(self, run_seq: int, parts: Sequence[bytes]) -> None:
        if 0 < run_seq <= self._last_run_seq:
            return  # sent twice
        if not self._last_run_seq and run_seq > 1 and not self._position.stream_seq:
            # What came before it was acknowledged, and the thread has nothing: the log was lost.
            self._number_anew()
        self._last_run_seq = max(run_seq, self._last_run_seq)
        try:
            if self._pending and self._pending[-1].ends:
                raise Unfit("AFTER_ENDING", "nothing can follow the run's ending")
            entry = read_entry(self._context, run_seq, parts, self._batch_max_bytes)
        except Unfit as unfit:
            self._outcome.rejected(run_seq, unfit.reason, unfit.message)
            entry = Entry(run_seq)
        if self._is_outdated(entry) or (
            self._already and entry.events and entry.events[0] in self._already
        ):
            entry = Entry(run_seq)  # stored before, or said too late: waits for those before it
        self._pending.append(entry)
        if self._skip_rejected():
            self._acknowledge(False)

    # --- what to do ----------------------------------------------------------------------------

    def next_step(self) -> Append | ReadForward | None:
        """What to do now; None: nothing until events or an answer come."""
        if self.over or self._in_flight is not None:
            return None
        if self._must_read:
            return ReadForward(self._position.stream_seq)
        if not self._pending:
            return None
        entries = first_entries(self._pending, self._batch_max_bytes)
        self._in_flight = build(self._context, self._position, entries)
        return self._in_flight

    # --- answers to an append ------------------------------------------------------------------

    def on_appended(self, stream_seq: int) -> None:
        """The append in flight is stored."""
        done, self._in_flight = self._in_flight, None
        if done is None or self.over:
            return
        self._position = Position(stream_seq, done.seq, done.epoch)
        self._drop_stored(done.entries, done.last_run_seq, done.ends)

    def on_append_failed(self) -> None:
        """It is not stored, or nobody knows: the log has to say."""
        self._in_flight = None
        self._must_read = True

    # --- answers to a read ---------------------------------------------------------------------

    def on_message(self, stream_seq: int, data: bytes) -> None:
        """The next message of the thread after the position known so far."""
        if self.over or stream_seq <= self._position.stream_seq:
            return
        batch = LogBatch.FromString(data)
        last_seq = batch.first_seq + len(batch.events) - 1
        self._position = Position(stream_seq, last_seq, batch.epoch)
        if batch.run == self._context.run:
            self._compare(batch)

    def on_empty(self) -> None:
        """The thread has no message at all."""
        if self._position.stream_seq:
            # What there was is gone (by age, or the thread was deleted): the numbering starts anew.
            self._number_anew()

    def _number_anew(self) -> None:
        self._position = Position(0, 0, max(self._now_ms(), self._position.epoch + 1))

    def on_read_done(self) -> None:
        """Everything up to the leader's last message has been given to `on_message`."""
        self._must_read = False
        if self._opening and not self.over:
            self._open()

    # --- what the log says about this run ------------------------------------------------------

    def _compare(self, batch: LogBatch) -> None:
        context = self._context
        if batch.attempt > context.attempt and not batch.ends:
            self._refuse("ATTEMPT_SUPERSEDED", "a later attempt of the run writes now")
        elif context.scope is Scope.LIFECYCLE:
            self._compare_lifecycle(batch)
        elif batch.attempt == context.attempt and batch.last_run_seq:
            self._compare_own(batch)
        elif batch.ends:
            self._refuse("RUN_ENDED", "the run has already ended")

    def _is_outdated(self, entry: Entry) -> bool:
        """Whether it says that the run waits, and the log knows better."""
        if self._position_said is None or entry.kinds != ("run_queued",):
            return False
        return entry.events[0].run_queued.position >= self._position_said

    def _drop_outdated(self, batch: LogBatch) -> None:
        said = [each.run_queued.position for each in batch.events if each.HasField("run_queued")]
        if batch.last_run_seq:
            said.append(0)
        if not said:
            return
        self._position_said = min(
            said if self._position_said is None else [*said, self._position_said]
        )
        kept = deque(each for each in self._pending if not self._is_outdated(each))
        dropped, self._pending = len(kept) < len(self._pending), kept
        if dropped and not kept:
            self._acknowledge(False)

    def _compare_lifecycle(self, batch: LogBatch) -> None:
        self._drop_outdated(batch)
        # These have no run_seq; each is the same event only if all of it is the same, `at` included.
        before = len(self._pending)
        for event in batch.events if not batch.last_run_seq else ():
            if self._pending and self._pending[0].events == (event,):
                self._pending.popleft()
            elif self._opening:
                self._already.append(event)
        stored = len(self._pending) < before
        if batch.ends and (self._pending or not stored):
            self._refuse("RUN_ENDED", "the run has already ended")
        elif stored:
            self._drop_stored(0, 0, batch.ends)

    def _compare_own(self, batch: LogBatch) -> None:
        """A batch of this very attempt: stored by us, or by another opening of the run."""
        last_run_seq = batch.last_run_seq
        if self._opening:
            # Nothing was taken yet: this is how far the run has come.
            self._last_run_seq = self.durable_run_seq = last_run_seq
            if batch.ends:
                self._open()
                self._acknowledge(True)
            return
        entries = sum(1 for entry in self._pending if entry.run_seq <= last_run_seq)
        last = self._pending[entries - 1] if entries else None
        if last is None or last.run_seq != last_run_seq:
            # Another opening may have cut the pieces elsewhere: what waits here cannot be told from
            # what is stored. A new opening is told where to go on.
            self._refuse(
                "WRITER_SUPERSEDED", "another opening of the run writes now", retryable=True
            )
        elif batch.ends and not last.ends:
            self._refuse("RUN_ENDED", "the run has already ended")
        else:
            self._drop_stored(entries, last_run_seq, batch.ends)

    # --- consequences --------------------------------------------------------------------------

    def _open(self) -> None:
        self._opening = False
        self._outcome.opened(self.durable_run_seq)

    def _drop_stored(self, entries: int, last_run_seq: int, ended: bool) -> None:
        for _ in range(entries):
            self._pending.popleft()
        self.durable_run_seq = max(self.durable_run_seq, last_run_seq)
        self._skip_rejected()
        if self._context.scope is Scope.LIFECYCLE and self._pending:
            return  # all have run_seq 0, so that an acknowledgement covers all that were sent
        self._acknowledge(ended)

    def _skip_rejected(self) -> bool:
        """Rejected pieces count as durable once everything before them is."""
        before = len(self._pending)
        while self._pending and not self._pending[0].events:
            self.durable_run_seq = max(self.durable_run_seq, self._pending.popleft().run_seq)
        return len(self._pending) < before

    def _acknowledge(self, ended: bool) -> None:
        self.ended = ended
        if ended:
            self.close()
        self._outcome.acknowledged(self.durable_run_seq, ended)

    def _refuse(self, reason: str, message: str, *, retryable: bool = False) -> None:
        self.close()
        self._outcome.refused(reason, message, retryable)

    def close(self) -> None:
        """Take and store nothing any more. An append in flight may still be stored."""
        self.over = True
        self._pending.clear()
        self._already.clear()
