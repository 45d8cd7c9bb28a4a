"""Puts a run's events into its thread's log: the writer core on JetStream.

Invariants: one append in flight; while the integration is not ACTIVE nothing is sent and nothing is
lost, and what waits is bounded by the run's window at the sender; after `close` nothing of the run is
left here.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from factorychain._core.component import TaskSet
from factorychain._core.crash_points import crash_point
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain._core.jetstream import Stream
from factorychain._core.link.refusal import Refusal
from factorychain._core.log_reader import ThreadLogReader, read_upto
from factorychain._core.logging import get_logger
from factorychain._core.stored import NatsUnavailable, StorageRefused, WrongLastSequence
from factorychain._core.telemetry import TRACEPARENT, SpanKind, counter, histogram, span
from factorychain_bridge.batches import Append
from factorychain_bridge.recovery import Recovery
from factorychain_bridge.thread_log import ReadForward, ThreadLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from factorychain._core.link import Receipts

log = get_logger(__name__)

_FIRST_BACKOFF_S = 0.02
_LONGEST_BACKOFF_S = 2.0

_appended = counter("factorychain.bridge.appended_events", "Events stored in the log")
_batches = counter("factorychain.bridge.appended_batches", "Messages stored in the log")
_conflicts = counter(
    "factorychain.bridge.append_conflicts", "Appends that somebody was faster than"
)
_failures = counter("factorychain.bridge.append_failures", "Appends and reads without an answer")
_append_s = histogram("factorychain.bridge.append.duration", "Time of one append, in seconds")


@dataclass(frozen=True, slots=True)
class LogAccess:
    """What the writers of one replica share."""

    reader: ThreadLogReader
    recovery: Recovery
    tasks: TaskSet
    batch_max_bytes: int

    def locate(self, principal: Principal, thread: str) -> tuple[Stream, str]:
        return self.reader.locate(principal, thread)


class RunWriter:
    """The writer of one open run; a `ChannelHandler` of the link from emitters."""

    def __init__(
        self,
        context: UserExecutionContext,
        receipts: Receipts,
        access: LogAccess,
        *,
        resumed: bool,
        trace: str,
        on_close: Callable[[RunWriter], None],
    ) -> None:
        self.context = context
        self._receipts = receipts
        self._access = access
        self._trace = trace
        self._on_close = on_close
        self._stream, self._subject = access.locate(context.principal, context.thread)
        self._wake = asyncio.Event()
        self._backoff_s = 0.0
        self._open = asyncio.get_running_loop().create_future()
        self._closed = False
        self._log = ThreadLog(
            context,
            self,
            resumed=resumed,
            batch_max_bytes=access.batch_max_bytes,
            now_ms=_now_ms,
        )
        self._driving = access.tasks.spawn(self._drive(), f"writer of {context.run}")

    @property
    def durable_run_seq(self) -> int:
        return self._log.durable_run_seq

    async def wait_opened(self) -> None:
        """Returns too if the opening is refused."""
        await self._open

    # --- the link's channel --------------------------------------------------------------------

    def events(self, events: list[tuple[int, bytes]]) -> None:
        """Take events; the link's window bounds how many wait here."""
        self._log.add(events)
        self._wake.set()

    def renewed(self, ctx: UserExecutionContext) -> None:
        """Nothing to do: what is written does not hold a token."""

    def close(self) -> None:
        """The sender is done, or gone; may be called twice. What it has no acknowledgement for it
        sends again on another stream.
        """
        if self._closed:
            return
        self._closed = True
        self._log.close()
        self._driving.cancel()
        self._settle_open()
        self._on_close(self)

    def supersede(self) -> None:
        """A newer opening of the run has come: this one's sender is a leftover."""
        self.refused("WRITER_SUPERSEDED", "the run was opened again here", retryable=False)

    # --- what the core says --------------------------------------------------------------------

    def opened(self, durable_run_seq: int) -> None:
        """The link answers the opening when `wait_opened` returns, with `durable_run_seq`."""
        self._settle_open()

    def acknowledged(self, durable_run_seq: int, ended: bool) -> None:
        self._receipts.acknowledged(durable_run_seq, ended)

    def rejected(self, run_seq: int, reason: str, message: str) -> None:
        context = self.context
        log.critical(
            "the log cannot take an event; the user will not see it",
            run=context.run,
            thread=context.thread,
            tenant=context.principal.tenant,
            run_seq=run_seq,
            reason=reason,
            business_impact="an event of this run is missing for its user",
        )
        self._receipts.rejected(run_seq, reason, message)

    def refused(self, reason: str, message: str, retryable: bool) -> None:
        self._receipts.refused(Refusal(reason, message, retryable))
        self.close()

    def _settle_open(self) -> None:
        if not self._open.done():
            self._open.set_result(None)

    # --- appending -----------------------------------------------------------------------------

    async def _drive(self) -> None:
        try:
            await self._drive_until_closed()
        except StorageRefused as error:
            self._give_up(error)
        except Exception:
            # A writer that only stopped would leave its run without an answer for ever.
            log.exception("the writer of a run failed", run=self.context.run)
            self.refused(
                "INTERNAL", "the writer of the run failed; the bridge's log says why", False
            )

    async def _drive_until_closed(self) -> None:
        while not self._closed:
            await self._access.recovery.active()
            self._wake.clear()
            step = self._log.next_step()
            if isinstance(step, Append):
                await self._append(step)
            elif isinstance(step, ReadForward):
                await self._read(step)
            else:
                await self._wake.wait()

    async def _append(self, append: Append) -> None:
        began_s = time.perf_counter()
        try:
            if append.begins or append.ends:
                stream_seq = await self._append_seen(append)
            else:
                stream_seq = await self._publish(append, append.trace)
        except WrongLastSequence:
            _conflicts.add()
            self._log.on_append_failed()
            await self._back_off()
        except NatsUnavailable as error:
            self._log.on_append_failed()
            await self._unanswered(error)
        else:
            self._backoff_s = 0.0
            _append_s.record(time.perf_counter() - began_s)
            _batches.add()
            _appended.add(append.events)
            self._log.on_appended(stream_seq)
            crash_point("bridge.append.acknowledged")

    async def _append_seen(self, append: Append) -> int:
        """With a span: the first and the last append of an attempt."""
        attributes: dict[str, str | int | bool] = {
            "factorychain.run": self.context.run,
            "factorychain.events": append.events,
            "factorychain.ends": append.ends,
        }
        parent = append.trace or self._trace
        with span(
            "bridge append", kind=SpanKind.PRODUCER, parent=parent, attributes=attributes
        ) as own:
            return await self._publish(append, own.traceparent)

    async def _publish(self, append: Append, trace: str) -> int:
        headers = {TRACEPARENT: trace} if trace else None
        crash_point("bridge.append.sending")
        stored = await self._stream.publish(
            self._subject,
            append.payload,
            expected_last_subject_seq=append.expected,
            headers=headers,
        )
        crash_point("bridge.ending.stored" if append.ends else "bridge.append.stored")
        return stored

    async def _read(self, step: ReadForward) -> None:
        crash_point("bridge.log.reading")
        try:
            last = await self._stream.last_message(self._subject)
            if last is None:
                self._log.on_empty()
            else:
                async for message in read_upto(self._stream, self._subject, step.after, last.seq):
                    self._log.on_message(message.seq, message.data)
        except NatsUnavailable as error:
            await self._unanswered(error)
        else:
            self._log.on_read_done()

    async def _unanswered(self, error: NatsUnavailable) -> None:
        _failures.add()
        log.warning("the log did not answer", run=self.context.run, cause=error.what)
        self._access.recovery.suspect()
        await self._back_off()

    async def _back_off(self) -> None:
        """The first repetition is immediate: usually somebody else's append has come between."""
        if self._backoff_s:
            await asyncio.sleep(self._backoff_s * random.uniform(0.5, 1.5))
        self._backoff_s = min(max(2 * self._backoff_s, _FIRST_BACKOFF_S), _LONGEST_BACKOFF_S)

    def _give_up(self, error: StorageRefused) -> None:
        log.critical(
            "the log refuses this run's events",
            run=self.context.run,
            cause=str(error),
            business_impact="the run cannot be shown to its user",
        )
        self.refused(
            "LOG_REFUSED", "the log refuses the run's events; its operator has to look", False
        )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
