"""Starts runs that waited: gives the next one of a user's queue its place.

Invariant: a place is given by one compare-and-set of the user's record, made from what was read before;
so whatever several engines do at once, each run starts once, in its turn, and never one too many. From
the moment in which the place may be stored the run counts as starting here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from factorychain._core.crash_points import crash_point
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain._core.logging import get_logger
from factorychain._core.stored import NatsUnavailable, WrongLastSequence
from factorychain._core.telemetry import counter, histogram
from factorychain.errors import FactoryChainError
from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.queueing import mark, promote
from factorychain_engine.admission.record import ActiveRun, UserRecord, startable
from factorychain_engine.limits import LimitsOf
from factorychain_engine.places.entries import Entries
from factorychain_engine.places.own_room import OwnRoom
from factorychain_engine.places.started import Taken
from factorychain_engine.records.store import Records
from factorychain_engine.records.stored_run import StoredRun
from factorychain_engine.records.users_store import UsersStore, Versioned
from factorychain_engine.retry import PASSING, retries
from factorychain_engine.runs.supervised_runs import SupervisedRuns
from factorychain_engine.validation import StartRequest, queued_start

log = get_logger(__name__)
_promoted = counter("factorychain.engine.promoted", "Runs that had waited and got a place")
_waited_s = histogram("factorychain.engine.queue.duration", "Time that a run waited, in seconds")

INPUT_LOST: Final = "INPUT_LOST"


@dataclass(frozen=True, slots=True)
class Promoted:
    """A run that had waited, with its place."""

    start: StartRequest
    taken: Taken
    queued: QueuedRun


@dataclass(frozen=True, slots=True)
class Change:
    """What was made of a queue; if it is as before, somebody else has changed it, or it is not known."""

    before: UserRecord
    after: UserRecord
    began: bool = False
    """A run has its place; else one that cannot be started was marked to end."""


class Promoter:
    """Gives places to those that wait."""

    def __init__(
        self,
        *,
        engine_id: str,
        users: UsersStore,
        records: Records,
        entries: Entries,
        runs: SupervisedRuns,
        own_room: OwnRoom,
        limits: LimitsOf,
        context: Callable[[Principal, ActiveRun], UserExecutionContext],
        begin: Callable[[Promoted], None],
    ) -> None:
        """`begin` has a run with its place looked after."""
        self._engine_id = engine_id
        self._users = users
        self._records = records
        self._entries = entries
        self._runs = runs
        self._own_room = own_room
        self._limits = limits
        self._context = context
        self._begin = begin

    def startable(self, principal: Principal, record: UserRecord) -> list[QueuedRun]:
        """Those that may have a place now."""
        return startable(record, self._limit_of(principal))

    async def promote(self, principal: Principal, known: Versioned) -> Change | None:
        """Start the next run that may, by the user's record as it was read just now; None: there is none.

        Raises:
            Capacity: this engine is full, or agents are.
            ChainDegraded: storage or agents are away.
        """
        began_s = time.perf_counter()
        able = self.startable(principal, known.record)
        if not able:
            return None
        queued = able[0]
        kept = await self._records.queued(principal, queued.run, queued.kept)
        if kept is None:
            return await self._cannot(principal, known, queued, INPUT_LOST, "Its input is lost")
        try:
            entry = await self._entries.begin(principal, queued)
        except FactoryChainError as error:
            if error.code in PASSING:
                raise
            return await self._cannot(principal, known, queued, error.reason, error.message)
        return await self._start(principal, known, queued, kept, entry, began_s)

    async def _start(
        self,
        principal: Principal,
        known: Versioned,
        queued: QueuedRun,
        kept: StoredRun,
        entry: ActiveRun,
        began_s: float,
    ) -> Change | None:
        record = promote(known.record, entry, self._limit_of(principal))
        if record is None:
            return None
        with self._own_room.taking(), self._runs.starting(entry.run):
            if not await self._stored(principal, known, record, entry):
                return Change(known.record, known.record)
            crash_point("engine.queue.promoted")
            _promoted.add(1)
            _waited_s.record(max(0.0, entry.admitted_at_s - queued.queued_at_s))
            log.info("a run that waited is started", run=entry.run, thread=entry.thread)
            start = queued_start(principal, kept.run, queued.request_hash, queued.plan)
            context = self._context(principal, entry)
            taken = Taken(entry, context, time.perf_counter() - began_s)
            self._begin(Promoted(start, taken, queued))
        return Change(known.record, record, began=True)

    def _limit_of(self, principal: Principal) -> Callable[[QueuedRun], int]:
        return lambda each: self._limits(principal, each.plan).active_runs

    async def _cannot(
        self, principal: Principal, known: Versioned, queued: QueuedRun, reason: str, message: str
    ) -> Change:
        log.warning("a run that waited cannot be started", run=queued.run, reason=reason)
        record = mark(known.record, [queued.run], reason, self._engine_id, message)
        crash_point("engine.queue.refusing")
        try:
            async with self._users.turn(principal):
                await self._users.replace(principal, known, record)
        except WrongLastSequence:
            return Change(known.record, known.record)
        crash_point("engine.queue.refused")
        return Change(known.record, record)

    async def _stored(
        self, principal: Principal, known: Versioned, record: UserRecord, entry: ActiveRun
    ) -> bool:
        """One compare-and-set; after a lost answer the record says what became of it."""
        crash_point("engine.queue.promoting")
        try:
            async with self._users.turn(principal):
                await self._users.replace(principal, known, record)
        except WrongLastSequence:
            return False
        except NatsUnavailable as error:
            if not error.sent:
                raise
        else:
            return True
        async for _ in retries():
            try:
                found = (await self._users.read(principal)).record.place(entry)
            except NatsUnavailable:
                continue
            return found is not None and found.owner == self._engine_id
        raise AssertionError("unreachable: retries() never ends")
