"""Whether a run has ended: the log says so, and its record is brought up to it.

Invariant: a run counts as ended exactly when its ending is in the log, whatever any process claims;
and its record shows the outcome before anybody is told that it has ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from factorychain._core.crash_points import crash_point
from factorychain._core.ids import Principal
from factorychain._core.log_reader import EndingFound, ThreadLogReader
from factorychain.types.v1.event_pb2 import Event
from factorychain.types.v1.run_pb2 import Run
from factorychain_engine.admission.record import ActiveRun
from factorychain_engine.records.endings import begun, has_ended, project
from factorychain_engine.records.store import Records
from factorychain_engine.records.stored_run import StoredRun, record_of
from factorychain_engine.remembered import Remembered

FIRST_POLL_S: Final = 0.02
LONGEST_POLL_S: Final = 0.5

REMEMBERED_ENDS: Final = 4096
REMEMBERED_FOR_S: Final = 300.0
"""Far below the age at which the log drops what it has."""


@dataclass(frozen=True, slots=True)
class ThreadEnd:
    """Where a thread's log ended when its last run had ended."""

    run: str
    stream_seq: int
    seq: int
    epoch: int
    seen_at_s: float


class Outcomes:
    """Outcomes of runs."""

    def __init__(
        self,
        log: ThreadLogReader,
        records: Records,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._records = records
        self._monotonic = monotonic
        self._ends: Remembered[ThreadEnd] = Remembered(REMEMBERED_ENDS)

    def end_after(self, principal: Principal, thread: str, run: str) -> ThreadEnd | None:
        """Where the thread's log ends if `run` was the last to write there, as far as is remembered."""
        end = self._ends.get(f"{principal.ukey}.{thread}")
        if end is None or end.run != run:
            return None
        return end if self._monotonic() - end.seen_at_s < REMEMBERED_FOR_S else None

    async def of_record(self, principal: Principal, known: StoredRun) -> Run | None:
        """The run as it ended; None while its ending is not in the log.

        Raises:
            NatsUnavailable: storage does not answer.
        """
        if has_ended(known.run):
            return known.run
        ending = await self._ending(principal, known.run.thread, known.run.run, known.base)
        if ending is None:
            return None
        return await self._end(principal, known, ending)

    async def of_place(self, principal: Principal, entry: ActiveRun) -> Run | None:
        """As `of_record`, for a run of which only its place is known.

        Raises:
            NatsUnavailable: storage does not answer.
        """
        ending = await self._ending(principal, entry.thread, entry.run, entry.base)
        if ending is None:
            return await self._ended_before(principal, entry)
        return await self._end(principal, await self.restored(principal, entry), ending)

    async def restored(self, principal: Principal, entry: ActiveRun) -> StoredRun:
        """The run's record; when its engine died before writing one, made again from the log."""
        stored = await self._records.run_in(principal, entry.thread, entry.run)
        if stored is not None:
            return stored
        kept = await self._kept(principal, entry)
        if kept is not None:
            return kept
        known = record_of(entry)
        started = await self._started(principal, entry)
        return known if started is None else known.with_run(begun(known.run, started))

    async def wait(self, principal: Principal, entry: ActiveRun, timeout_s: float) -> Run | None:
        """The run as it ended, as soon as it has; None if that took longer than `timeout_s`.

        Raises:
            NatsUnavailable: storage does not answer.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        pause_s = FIRST_POLL_S
        while True:
            ended = await self.of_place(principal, entry)
            if ended is not None or loop.time() + pause_s > until_s:
                return ended
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LONGEST_POLL_S)

    async def _end(self, principal: Principal, known: StoredRun, ending: EndingFound) -> Run:
        crash_point("engine.ending.found")
        ended = await self._records.end_run(
            principal, known, lambda run: project(run, ending.event, ending.attempt)
        )
        crash_point("engine.ending.recorded")
        return ended

    async def _ending(
        self, principal: Principal, thread: str, run: str, base: int
    ) -> EndingFound | None:
        found = await self._log.find_ending(principal, thread, run, base)
        if found is None:
            return None
        if found.is_last:
            end = ThreadEnd(run, found.stream_seq, found.seq, found.epoch, self._monotonic())
            self._ends.put(f"{principal.ukey}.{thread}", end)
        return found

    async def _ended_before(self, principal: Principal, entry: ActiveRun) -> Run | None:
        """The run as an earlier place of it ended: the same start came again, and took a place before
        it was seen that it had been there. No agents ever have such a place.
        """
        if entry.agents_address:
            return None
        stored = await self._records.find_run(principal, entry.run)
        return stored.run if stored is not None and has_ended(stored.run) else None

    async def _kept(self, principal: Principal, entry: ActiveRun) -> StoredRun | None:
        if not entry.kept:
            return None
        kept = await self._records.queued(principal, entry.run, entry.kept)
        if kept is None:
            return None
        run = kept.run
        return record_of(entry, run.input_json, run.metadata_json, run.resumes, run.context)

    async def _started(self, principal: Principal, entry: ActiveRun) -> Event | None:
        last = await self._log.last(principal, entry.thread)
        upto = 0 if last is None else last.stream_seq
        async for _, batch in self._log.read_from(principal, entry.thread, entry.base, upto):
            if batch.run != entry.run:
                continue
            for event in batch.events:
                if event.HasField("agent_started"):
                    return event
        return None
