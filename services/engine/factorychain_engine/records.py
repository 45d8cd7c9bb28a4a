"""The records of runs and threads in storage.

Invariant: every key begins with the caller's own key, so what is someone else's cannot be named. A
run's record that shows an ending is never replaced. The records of threads change by
compare-and-set, so that two changes at once are both kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from google.protobuf.timestamp_pb2 import Timestamp

from factorychain._core.ids import Principal, thread_key
from factorychain._core.kv import KvBucket
from factorychain._core.logging import get_logger
from factorychain._core.stored import KvEntry, WrongLastSequence
from factorychain.types.v1.run_pb2 import Run, Thread
from factorychain_engine import stored_run
from factorychain_engine.endings import has_ended, timestamp
from factorychain_engine.stored_run import StoredRun, UnreadableRecord

_log = get_logger(__name__)


class Records:
    """Runs (`<ukey>.<tkey>.<run>`) and threads (`<ukey>.<tkey>`)."""

    def __init__(self, runs: KvBucket, threads: KvBucket) -> None:
        self._runs = runs
        self._threads = threads

    async def find_run(self, principal: Principal, run: str) -> StoredRun | None:
        """The principal's run of this id, in whichever thread it is."""
        entry = await self._runs.find(f"{principal.ukey}.*.{run}")
        return None if entry is None else _read_run(entry)

    async def run_in(self, principal: Principal, thread: str, run: str) -> StoredRun | None:
        """The principal's run of this id in this thread."""
        entry = await self._runs.get(_run_key(principal, thread, run))
        return None if entry is None else _read_run(entry)

    async def runs_of(
        self, principal: Principal, thread: str | None = None
    ) -> AsyncIterator[StoredRun]:
        """The principal's runs, in no order."""
        where = "*" if thread is None else thread_key(thread)
        async for entry in self._runs.scan(f"{principal.ukey}.{where}.*"):
            found = _read_run(entry)
            if found is not None:
                yield found

    async def create_run(self, principal: Principal, stored: StoredRun) -> None:
        """Write a run's first record; one that is there already (of an adopter) stays."""
        try:
            await self._runs.create(_key_of(principal, stored.run), stored_run.encode(stored))
        except WrongLastSequence:
            return

    async def end_run(
        self, principal: Principal, known: StoredRun, project: Callable[[Run], Run]
    ) -> Run:
        """Write the outcome into a run's record and return it; an outcome that is there stays.

        `known` is what the record is made of when nothing is stored yet.
        """
        key = _key_of(principal, known.run)
        while True:
            entry = await self._runs.read(key)
            stored = (_read_run(entry) if entry.value else None) or known
            if has_ended(stored.run):
                return stored.run
            ended = stored.with_run(project(stored.run))
            try:
                await self._runs.update(key, stored_run.encode(ended), entry.revision)
            except WrongLastSequence:
                continue
            return ended.run

    async def thread(self, principal: Principal, thread: str) -> Thread | None:
        entry = await self._threads.get(_thread_key(principal, thread))
        return None if entry is None or entry.value is None else Thread.FromString(entry.value)

    async def threads_of(self, principal: Principal) -> AsyncIterator[Thread]:
        """The principal's threads, in no order."""
        async for entry in self._threads.scan(f"{principal.ukey}.*"):
            if entry.value is not None:
                yield Thread.FromString(entry.value)

    async def touch_thread(
        self, principal: Principal, thread: str, title: str, now_s: float
    ) -> None:
        """Note that something happened in a thread; the first time gives it its title."""
        key = _thread_key(principal, thread)
        at = timestamp(now_s)
        while True:
            entry = await self._threads.read(key)
            record = Thread(thread=thread, title=title, created_at=at)
            if entry.value is not None:
                record = Thread.FromString(entry.value)
            if not _touch(record, title, at):
                return
            try:
                await self._threads.update(key, record.SerializeToString(), entry.revision)
            except WrongLastSequence:
                continue
            return


def _touch(thread: Thread, title: str, at: Timestamp) -> bool:
    """Whether that changed anything. What happened first may be written last."""
    before = thread.SerializeToString(deterministic=True)
    thread.title = thread.title or title
    if at.ToNanoseconds() < thread.created_at.ToNanoseconds():
        thread.created_at.CopyFrom(at)
    if at.ToNanoseconds() > thread.updated_at.ToNanoseconds():
        thread.updated_at.CopyFrom(at)
    return thread.SerializeToString(deterministic=True) != before


def _key_of(principal: Principal, run: Run) -> str:
    return _run_key(principal, run.thread, run.run)


def _run_key(principal: Principal, thread: str, run: str) -> str:
    return f"{_thread_key(principal, thread)}.{run}"


def _thread_key(principal: Principal, thread: str) -> str:
    return f"{principal.ukey}.{thread_key(thread)}"


def _read_run(entry: KvEntry) -> StoredRun | None:
    """A record that cannot be read is reported and counts as not there: it must not block a start."""
    if entry.value is None:
        return None
    try:
        return stored_run.decode(entry.value, entry.revision)
    except UnreadableRecord as error:
        _log.error("run_record_unreadable", key=entry.key, error=str(error))
        return None
