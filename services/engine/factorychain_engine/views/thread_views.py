"""What a principal sees of its own threads, and what an agent sees of the thread that it runs in.

Invariant: as in `run_views`: only what is under the caller's own key, and endings from the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain.errors import ThreadNotFound
from factorychain.types.v1.run_pb2 import Run, Thread
from factorychain_engine.admission.queueing import as_place
from factorychain_engine.admission.record import ActiveRun, UserRecord
from factorychain_engine.records.endings import has_ended, timestamp
from factorychain_engine.records.store import Records
from factorychain_engine.records.users_store import UsersStore
from factorychain_engine.views import history
from factorychain_engine.views.pages import (
    Cursor,
    Newest,
    Page,
    cursor_of,
    latest_that_fit,
    page_of,
)
from factorychain_engine.views.run_views import RunViews

THREADS: Final = "threads"


class ThreadViews:
    """Threads as their principal sees them. Every method raises NatsUnavailable if storage is away."""

    def __init__(self, users: UsersStore, records: Records, runs: RunViews) -> None:
        self._users = users
        self._records = records
        self._runs = runs

    async def threads(self, principal: Principal, *, size: int, token: str) -> Page[Thread]:
        """A page of threads, the one changed last first.

        Raises:
            InvalidField: the token is not one of this listing's.
        """
        newest = Newest[Thread](size, cursor_of(principal, THREADS, token))
        record = (await self._users.read(principal)).record
        missing = _asked_for(record)
        async for thread in self._records.threads_of(principal):
            missing.pop(thread.thread, None)
            newest.offer(_cursor(thread), thread)
        for entry in missing.values():
            thread = _begun(entry.thread, timestamp(entry.asked_at_s))
            newest.offer(_cursor(thread), thread)
        page = newest.page()
        active = await self._active(principal, record)
        for thread in page.items:
            thread.active_run = active.get(thread.thread, "")
        return page

    async def thread(self, principal: Principal, thread: str) -> Thread:
        """One thread.

        Raises:
            ThreadNotFound: the principal has none of this id.
        """
        found, known = await asyncio.gather(
            self._records.thread(principal, thread), self._users.read(principal)
        )
        if found is None:
            place = _asked_for(known.record).get(thread)
            found = await self._unrecorded(principal, thread, place)
        found.active_run = (await self._active(principal, known.record)).get(thread, "")
        return found

    async def _unrecorded(
        self, principal: Principal, thread: str, place: ActiveRun | None
    ) -> Thread:
        """A thread whose record is not written yet. Its first run has a place or waits, or has ended by now:
        then it has a record, which was written before the place was freed.
        """
        if place is not None:
            return _begun(thread, timestamp(place.asked_at_s))
        async for stored in self._records.runs_of(principal, thread):
            return _begun(thread, stored.run.created_at)
        raise ThreadNotFound

    async def runs(self, principal: Principal, thread: str, *, size: int, token: str) -> Page[Run]:
        """A page of the thread's runs, the oldest first, without those that were replaced.

        Raises:
            InvalidField: the token is not one of this listing's.
        """
        after = cursor_of(principal, thread_listing(thread), token)
        runs = history.visible(await self._all_runs(principal, thread))
        cursors = [(Cursor(run.created_at.ToNanoseconds(), run.run), run) for run in runs]
        if after is not None:
            cursors = _after(cursors, after)
        return page_of(cursors, size)

    async def history(self, context: UserExecutionContext, limit: int) -> list[Run]:
        """What the run of this context has before it: the latest `limit` runs, the oldest first."""
        runs, known = await asyncio.gather(
            self._all_runs(context.principal, context.thread, queued=False),
            self._users.read(context.principal),
        )
        entry = known.record.in_thread(context.thread)
        replaces = entry.replaces if entry is not None and entry.run == context.run else ""
        before = history.before(runs, context.run, replaces)
        return latest_that_fit([run for run in before if has_ended(run)], limit)

    async def _all_runs(
        self, principal: Principal, thread: str, *, queued: bool = True
    ) -> list[Run]:
        # Places before records: a run that has left the one is in the other.
        record = (await self._users.read(principal)).record
        entry = record.in_thread(thread)
        found = {
            stored.run.run: await self._runs.shown(principal, stored)
            async for stored in self._records.runs_of(principal, thread)
        }
        if entry is not None and entry.run not in found:
            found[entry.run] = await self._runs.of_place(principal, entry)
        if queued:
            for run in await self._runs.of_queue(principal, record, thread):
                found.setdefault(run.run, run)
        return list(found.values())

    async def _active(self, principal: Principal, record: UserRecord) -> Mapping[str, str]:
        """By thread, the run that has a place and has not ended."""
        runs = await asyncio.gather(
            *(self._runs.of_place(principal, each) for each in record.active)
        )
        return {run.thread: run.run for run in runs if not has_ended(run)}


def _asked_for(record: UserRecord) -> dict[str, ActiveRun]:
    """By thread, a run that has a place there or waits for it; it may have ended this moment."""
    waiting = {each.thread: as_place(each) for each in reversed(record.queue)}
    return waiting | {each.thread: each for each in record.active}


def thread_listing(thread: str) -> str:
    """The name of the listing of a thread's runs, for its page tokens."""
    return f"thread:{thread}"


def _cursor(thread: Thread) -> Cursor:
    return Cursor(thread.updated_at.ToNanoseconds(), thread.thread)


def _begun(thread: str, at: Timestamp) -> Thread:
    return Thread(thread=thread, created_at=at, updated_at=at)


def _after(cursors: list[tuple[Cursor, Run]], last: Cursor) -> list[tuple[Cursor, Run]]:
    """What follows `last`; when that run is there no more, what was begun later."""
    for index, (cursor, _) in enumerate(cursors):
        if cursor == last:
            return cursors[index + 1 :]
    return [(cursor, run) for cursor, run in cursors if cursor > last]
