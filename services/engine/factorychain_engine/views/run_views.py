"""What a principal sees of its own runs.

Invariant: everything is found under the caller's own key, so what is someone else's is simply not
there; and a run whose ending is in the log is shown as ended, also before its record says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from factorychain._core.ids import Principal
from factorychain.errors import ChainDegraded, RunNotFound
from factorychain.types.v1.run_pb2 import Run, RunState
from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.queueing import as_place
from factorychain_engine.admission.record import ActiveRun, Totals, UserRecord
from factorychain_engine.records.endings import has_ended
from factorychain_engine.records.outcomes import Outcomes
from factorychain_engine.records.store import Records
from factorychain_engine.records.stored_run import StoredRun, record_of
from factorychain_engine.records.users_store import UsersStore
from factorychain_engine.runs.supervised_runs import SupervisedRuns
from factorychain_engine.views.pages import Cursor, Newest, Page, cursor_of

WATCH_POLL_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Used:
    """What a user has and had."""

    active: int
    queued: int
    totals: Totals


class RunViews:
    """Runs as their principal sees them. Every method raises NatsUnavailable if storage is away."""

    def __init__(
        self, users: UsersStore, records: Records, outcomes: Outcomes, supervised: SupervisedRuns
    ) -> None:
        self._users = users
        self._records = records
        self._outcomes = outcomes
        self._supervised = supervised
        self._draining = False

    def drain(self) -> None:
        """End the watches: whoever watches asks another engine."""
        self._draining = True

    async def run(self, principal: Principal, run: str) -> Run:
        """One run.

        Raises:
            RunNotFound: the principal has none of this id.
        """
        stored = await self._records.find_run(principal, run)
        if stored is not None:
            return await self.shown(principal, stored)
        record = (await self._users.read(principal)).record
        entry, queued = record.find(run), record.waiting(run)
        if entry is not None:
            return await self.of_place(principal, entry)
        if queued is not None:
            return await self.of_queued(principal, queued, record.position(run))
        # Before it ended it may have had no record, and now no place any more.
        stored = await self._records.find_run(principal, run)
        if stored is None:
            raise RunNotFound
        return stored.run

    async def place(self, principal: Principal, run: str) -> ActiveRun | None:
        """The place that the run holds, if it does."""
        return (await self._users.read(principal)).record.find(run)

    async def of_queued(self, principal: Principal, queued: QueuedRun, position: int) -> Run:
        """A run that waits; or has ended waiting, and leaves the queue this moment."""
        entry = as_place(queued)
        if queued.ending:
            ended = await self._outcomes.of_place(principal, entry)
            if ended is not None:
                return ended
        run = (await self._outcomes.restored(principal, entry)).run
        if not has_ended(run):
            run.state = RunState.RUN_STATE_QUEUED
            run.position = position
            run.ClearField("context")
        return run

    async def of_queue(self, principal: Principal, record: UserRecord, thread: str) -> list[Run]:
        """Those that wait, of one thread or (`thread` empty) of all, the longest waiting first."""
        return await asyncio.gather(
            *(
                self.of_queued(principal, each, record.position(each.run))
                for each in record.queue
                if thread in ("", each.thread)
            )
        )

    async def of_place(self, principal: Principal, entry: ActiveRun) -> Run:
        """A run of which there may be no record yet."""
        ended = await self._outcomes.of_place(principal, entry)
        if ended is not None:
            return ended
        stored = await self._records.run_in(principal, entry.thread, entry.run)
        return (stored or record_of(entry)).run

    async def shown(self, principal: Principal, stored: StoredRun) -> Run:
        """A recorded run, ended if the log says so."""
        return await self._outcomes.of_record(principal, stored) or stored.run

    async def runs(
        self, principal: Principal, *, thread: str, size: int, token: str, active_only: bool
    ) -> Page[Run]:
        """A page of runs, the newest first; `thread` empty: of all threads.

        Raises:
            InvalidField: the token is not one of this listing's.
        """
        listing = runs_listing(thread, active_only)
        newest = Newest[Run](size, cursor_of(principal, listing, token))
        async for run in self._listed(principal, thread, active_only):
            newest.offer(Cursor(run.created_at.ToNanoseconds(), run.run), run)
        return newest.page()

    async def _listed(
        self, principal: Principal, thread: str, active_only: bool
    ) -> AsyncIterator[Run]:
        record = (await self._users.read(principal)).record
        places = [each for each in record.active if thread in ("", each.thread)]
        found = await asyncio.gather(*(self.of_place(principal, each) for each in places))
        found += await self.of_queue(principal, record, thread)
        for run in found:
            if not (active_only and has_ended(run)):
                yield run
        if active_only:
            return
        held = {each.run for each in found}
        async for stored in self._records.runs_of(principal, thread or None):
            if stored.run.run not in held:
                yield await self.shown(principal, stored)

    async def watch(self, principal: Principal, run: str) -> AsyncIterator[Run]:
        """The run now, and after each change until it has ended.

        Raises:
            RunNotFound: the principal has none of this id.
        """
        shown: Run | None = None
        while True:
            now = await self.run(principal, run)
            if now != shown:
                yield now
                shown = now
            if has_ended(now):
                return
            if self._draining:
                raise ChainDegraded("engine")
            await self._change(principal, run)

    async def _change(self, principal: Principal, run: str) -> None:
        """Wait until it is worth looking again; for a run of this engine that is when it ends."""
        here = self._supervised.find(principal, run)
        if here is None or here.ended.done():
            await asyncio.sleep(WATCH_POLL_S)
        else:
            await asyncio.wait([here.ended], timeout=WATCH_POLL_S)

    async def used(self, principal: Principal) -> Used:
        """What the principal has and had."""
        record = (await self._users.read(principal)).record
        ended = await asyncio.gather(
            *(self._outcomes.of_place(principal, each) for each in record.active)
        )
        queued = sum(1 for each in record.queue if not each.ending)
        return Used(sum(1 for each in ended if each is None), queued, record.totals)


def runs_listing(thread: str, active_only: bool) -> str:
    """The name of a listing of runs, for its page tokens."""
    return f"runs:{thread}:{active_only}"
