"""Whether a run has ended: the log says so, and its record is brought up to it.

Invariant: a run counts as ended exactly when its ending is in the log, whatever any process claims;
and its record shows the outcome before anybody is told that it has ended.
"""

from __future__ import annotations

import asyncio
from typing import Final

from factorychain._core.ids import Principal
from factorychain._core.log_reader import ThreadLogReader
from factorychain.types.v1.event_pb2 import Event
from factorychain.types.v1.run_pb2 import Run
from factorychain_engine.admission import ActiveRun
from factorychain_engine.endings import begun, has_ended, project
from factorychain_engine.records import Records
from factorychain_engine.stored_run import StoredRun, record_of

FIRST_POLL_S: Final = 0.02
LONGEST_POLL_S: Final = 0.5


class Outcomes:
    """Outcomes of runs."""

    def __init__(self, log: ThreadLogReader, records: Records) -> None:
        self._log = log
        self._records = records

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
        return await self._records.end_run(principal, known, lambda run: project(run, ending))

    async def of_place(self, principal: Principal, entry: ActiveRun) -> Run | None:
        """As `of_record`, for a run of which only its place is known.

        Raises:
            NatsUnavailable: storage does not answer.
        """
        ending = await self._ending(principal, entry.thread, entry.run, entry.base)
        if ending is None:
            return None
        known = await self.restored(principal, entry)
        return await self._records.end_run(principal, known, lambda run: project(run, ending))

    async def restored(self, principal: Principal, entry: ActiveRun) -> StoredRun:
        """The run's record; when its engine died before writing one, made again from the log."""
        stored = await self._records.run_in(principal, entry.thread, entry.run)
        if stored is not None:
            return stored
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

    async def _ending(self, principal: Principal, thread: str, run: str, base: int) -> Event | None:
        found = await self._log.find_ending(principal, thread, run, base)
        return None if found is None else found.event

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
