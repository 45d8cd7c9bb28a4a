"""The records of runs and threads in storage.

Invariant: every key begins with the caller's own key, so what is someone else's cannot be named. A
run's record that shows an ending is never replaced. The records of threads change by
compare-and-set, so that two changes at once are both kept. What was written last is remembered with
its revision, which saves the read before a change; a change of anything else fails and reads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from factorychain._core.crash_points import crash_point
from factorychain._core.ids import Principal, thread_key
from factorychain._core.kv import KvBucket
from factorychain._core.logging import get_logger
from factorychain._core.stored import KvEntry, WrongLastSequence
from factorychain.types.v1.event_pb2 import InputReceived
from factorychain.types.v1.run_pb2 import Run, Thread
from factorychain_engine.records import stored_run
from factorychain_engine.records.endings import has_ended, timestamp
from factorychain_engine.records.stored_run import StoredRun, UnreadableRecord
from factorychain_engine.remembered import Remembered

log = get_logger(__name__)

REMEMBERED_RUNS: Final = 4096
REMEMBERED_THREADS: Final = 4096


@dataclass(frozen=True, slots=True)
class _StoredThread:
    """A thread's record and the revision that replaces it must name; 0: nothing is stored."""

    thread: Thread
    revision: int


class Records:
    """Runs (`<ukey>.<tkey>.<run>`), threads (`<ukey>.<tkey>`) and, until they have ended, runs that had to
    wait (`<ukey>.<run>.<kept>`).
    """

    def __init__(self, runs: KvBucket, threads: KvBucket, queued: KvBucket) -> None:
        self._runs = runs
        self._threads = threads
        self._queued = queued
        # Of runs that were begun here and have not ended: the revision of their record, 0 before it.
        self._begun: Remembered[int] = Remembered(REMEMBERED_RUNS)
        self._touched: Remembered[_StoredThread] = Remembered(REMEMBERED_THREADS)

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

    async def keep_queued(self, principal: Principal, kept: str, stored: StoredRun) -> None:
        """Keep what a run is to be started with that has to wait. It counts as admitted only once the
        user's record names `kept`.
        """
        key = _queued_key(principal, stored.run.run, kept)
        await self._queued.put(key, stored_run.encode(stored))

    async def queued(self, principal: Principal, run: str, kept: str) -> StoredRun | None:
        """What was kept for a run that had to wait."""
        entry = await self._queued.get(_queued_key(principal, run, kept))
        return None if entry is None else _read_run(entry)

    async def forget_queued(self, principal: Principal, run: str, kept: str) -> None:
        """The run has ended, or was never admitted. What is not forgotten goes by its age."""
        await self._queued.delete(_queued_key(principal, run, kept))

    def expect_run(self, principal: Principal, stored: StoredRun) -> None:
        """A run that was just admitted has no record yet."""
        self._begun.put(_key_of(principal, stored.run), 0)

    async def create_run(self, principal: Principal, stored: StoredRun) -> None:
        """Write a run's first record; one that is there already (of an adopter) stays."""
        key = _key_of(principal, stored.run)
        crash_point("engine.record.creating")
        try:
            revision = await self._runs.create(key, stored_run.encode(stored))
        except WrongLastSequence:
            self._begun.forget(key)
            return
        crash_point("engine.record.created")
        if self._begun.get(key) is not None:
            self._begun.put(key, revision)

    async def end_run(
        self, principal: Principal, known: StoredRun, project: Callable[[Run], Run]
    ) -> Run:
        """Write the outcome into a run's record and return it; an outcome that is there stays.

        `known` is what the record is made of when nothing is stored yet.
        """
        key = _key_of(principal, known.run)
        begun = self._begun.forget(key)
        if begun is not None:
            ended = known.with_run(project(known.run))
            try:
                await self._runs.update(key, stored_run.encode(ended), begun)
            except WrongLastSequence:
                return await self._end_stored(principal, known, project)
            return ended.run
        return await self._end_stored(principal, known, project)

    async def _end_stored(
        self, principal: Principal, known: StoredRun, project: Callable[[Run], Run]
    ) -> Run:
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

    async def note_attempt(self, principal: Principal, thread: str, run: str, attempt: int) -> None:
        """Write into a run's record which attempt runs now; an outcome that is there stays."""
        key = _run_key(principal, thread, run)
        while True:
            entry = await self._runs.read(key)
            stored = _read_run(entry) if entry.value else None
            if stored is None or has_ended(stored.run) or stored.run.attempt >= attempt:
                return
            changed = Run()
            changed.CopyFrom(stored.run)
            changed.attempt = attempt
            self._begun.forget(key)
            encoded = stored_run.encode(stored.with_run(changed))
            crash_point("engine.attempt.noting")
            try:
                await self._runs.update(key, encoded, entry.revision)
            except WrongLastSequence:
                continue
            crash_point("engine.attempt.noted")
            return

    async def answer_run(
        self, principal: Principal, stored: StoredRun, answer: InputReceived
    ) -> StoredRun | None:
        """Add an answer to the record of a run that has ended; None if the record was another."""
        run = Run()
        run.CopyFrom(stored.run)
        run.answers.append(answer)
        answered = stored.with_run(run)
        key = _key_of(principal, run)
        crash_point("engine.answer.keeping")
        try:
            revision = await self._runs.update(key, stored_run.encode(answered), stored.revision)
        except WrongLastSequence:
            return None
        crash_point("engine.answer.kept")
        return replace(answered, revision=revision)

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
        known = self._touched.forget(key)
        while True:
            known = known or await self._stored_thread(key, thread, at)
            record = _touched(known.thread, title, at)
            if known.revision and record == known.thread:
                self._touched.put(key, known)
                return
            try:
                revision = await self._threads.update(
                    key, record.SerializeToString(), known.revision
                )
            except WrongLastSequence:
                known = None
                continue
            crash_point("engine.thread.recorded")
            self._touched.put(key, _StoredThread(record, revision))
            return

    def has_touched(self, principal: Principal, thread: str) -> bool:
        """Whether this process has written the thread's record lately: it exists."""
        return self._touched.get(_thread_key(principal, thread)) is not None

    def forget_threads(self) -> None:
        """Storage has lost the records of threads: what was written is not there any more."""
        self._touched.clear()

    async def _stored_thread(self, key: str, thread: str, at: Timestamp) -> _StoredThread:
        entry = await self._threads.read(key)
        if entry.value is None:
            return _StoredThread(Thread(thread=thread, created_at=at), entry.revision)
        return _StoredThread(Thread.FromString(entry.value), entry.revision)


def _touched(thread: Thread, title: str, at: Timestamp) -> Thread:
    """The record after it. What happened first may be written last."""
    record = Thread()
    record.CopyFrom(thread)
    record.title = thread.title or title
    if at.ToNanoseconds() < record.created_at.ToNanoseconds():
        record.created_at.CopyFrom(at)
    if at.ToNanoseconds() > record.updated_at.ToNanoseconds():
        record.updated_at.CopyFrom(at)
    return record


def _key_of(principal: Principal, run: Run) -> str:
    return _run_key(principal, run.thread, run.run)


def _queued_key(principal: Principal, run: str, kept: str) -> str:
    return f"{principal.ukey}.{run}.{kept}"


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
        log.error("the record of a run cannot be read", key=entry.key, error=str(error))
        return None
