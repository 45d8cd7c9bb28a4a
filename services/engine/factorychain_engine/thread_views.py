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
from factorychain_engine import history
from factorychain_engine.admission import ActiveRun
from factorychain_engine.endings import has_ended, timestamp
from factorychain_engine.pages import Cursor, Newest, Page, cursor_of, latest_that_fit, page_of
from factorychain_engine.records import Records
from factorychain_engine.run_views import RunViews
from factorychain_engine.users_store import UsersStore

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
        places = await self._places(principal)
        missing = dict(places)
        async for thread in self._records.threads_of(principal):
            missing.pop(thread.thread, None)
            newest.offer(_cursor(thread), thread)
        for entry in missing.values():
            thread = _begun(entry.thread, timestamp(entry.admitted_at_s))
            newest.offer(_cursor(thread), thread)
        page = newest.page()
        active = await self._active(principal, places)
        for thread in page.items:
            thread.active_run = active.get(thread.thread, "")
        return page

    async def thread(self, principal: Principal, thread: str) -> Thread:
        """One thread.

        Raises:
            ThreadNotFound: the principal has none of this id.
        """
        found, places = await asyncio.gather(
            self._records.thread(principal, thread), self._places(principal)
        )
        if found is None:
            found = await self._unrecorded(principal, thread, places.get(thread))
        found.active_run = (await self._active(principal, places)).get(thread, "")
        return found

    async def _unrecorded(
        self, principal: Principal, thread: str, place: ActiveRun | None
    ) -> Thread:
        """A thread whose record is not written yet. Its first run has a place, or has ended by now:
        then it has a record, which was written before the place was freed.
        """
        if place is not None:
            return _begun(thread, timestamp(place.admitted_at_s))
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
        runs, places = await asyncio.gather(
            self._all_runs(context.principal, context.thread), self._places(context.principal)
        )
        entry = places.get(context.thread)
        replaces = entry.replaces if entry is not None and entry.run == context.run else ""
        before = history.before(runs, context.run, replaces)
        return latest_that_fit([run for run in before if has_ended(run)], limit)

    async def _all_runs(self, principal: Principal, thread: str) -> list[Run]:
        # Places before records: a run that has left the one is in the other.
        entry = (await self._users.read(principal)).record.in_thread(thread)
        found = {
            stored.run.run: await self._runs.shown(principal, stored)
            async for stored in self._records.runs_of(principal, thread)
        }
        if entry is not None and entry.run not in found:
            found[entry.run] = await self._runs.of_place(principal, entry)
        return list(found.values())

    async def _places(self, principal: Principal) -> Mapping[str, ActiveRun]:
        """By thread, the runs that hold a place; one may have ended this moment."""
        active = (await self._users.read(principal)).record.active
        return {each.thread: each for each in active}

    async def _active(
        self, principal: Principal, places: Mapping[str, ActiveRun]
    ) -> Mapping[str, str]:
        """By thread, the run that has not ended."""
        runs = await asyncio.gather(
            *(self._runs.of_place(principal, each) for each in places.values())
        )
        return {
            thread: run.run for thread, run in zip(places, runs, strict=True) if not has_ended(run)
        }


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
