"""The engine's factory: it makes places to run, and nobody holds one in another way.

Invariant: a place is taken by one compare-and-set of the user's record, and is left through
`ExecutionEngineFactory.place` or `.adopted`: freed when the run's ending is in its record or agents
never took the run, handed to another engine in every other case. It is never just dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final, Protocol

from factorychain._core.crash_points import crash_point
from factorychain._core.ids import Principal
from factorychain._core.logging import get_logger
from factorychain._core.stored import NatsUnavailable
from factorychain.errors import FactoryChainError
from factorychain.types.v1.run_pb2 import Run
from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.queueing import give_back
from factorychain_engine.admission.record import (
    NOTHING_USED,
    ActiveRun,
    Totals,
    UserRecord,
    release,
)
from factorychain_engine.places.started import Taken
from factorychain_engine.places.starting import Starting
from factorychain_engine.places.starts import Starts
from factorychain_engine.records.endings import used_by
from factorychain_engine.records.users_store import UsersStore
from factorychain_engine.retry import PASSING, retries
from factorychain_engine.validation import StartRequest

log = get_logger(__name__)

HAND_OVER_S: Final = 2.0
"""So long it is tried to leave to another engine what an engine that stops has."""
UNOWNED: Final = ""


class Listener(Protocol):
    """Who hears that places are free (`Queues`)."""

    @property
    def owner(self) -> str: ...

    def freed(self, principal: Principal, record: UserRecord) -> None: ...

    def returned(self, principal: Principal) -> None: ...


class Place:
    """A place that is held, for one run."""

    __slots__ = ("_done", "_queued", "_returned", "_used", "entry", "principal")

    def __init__(
        self, principal: Principal, entry: ActiveRun, queued: QueuedRun | None = None
    ) -> None:
        """`queued`: as the run stood in the queue that it comes from."""
        self.principal = principal
        self.entry = entry
        self._queued = queued
        self._returned: QueuedRun | None = None
        self._done = False
        self._used = NOTHING_USED

    @property
    def is_done(self) -> bool:
        return self._done

    @property
    def used(self) -> Totals:
        return self._used

    def ended_before(self) -> None:
        """The run had its place before: this one can be freed, and nothing remembers it."""
        self._done = True

    def ended(self, run: Run) -> None:
        """The run's ending is in the log and in its record: the place can be freed."""
        self._done = True
        self._used = used_by(run, self.entry)

    @property
    def returned(self) -> QueuedRun | None:
        """The run, if its place was given back: as it waits again, or is to end."""
        return self._returned

    def refused(self, refusal: FactoryChainError, cancelled: str = "") -> None:
        """Agents never took the run: the place can be freed, and nothing remembers it. One that had
        waited was admitted: it waits again, or ends, also if it was to be cancelled meanwhile.
        """
        self._done = True
        if self._queued is not None:
            again = not cancelled and refusal.code in PASSING
            ending, message = ("", "") if again else (refusal.reason, refusal.message)
            if cancelled:
                ending, message = cancelled, ""
            self._returned = replace(self._queued, ending=ending, ending_message=message)


class ExecutionEngineFactory:
    """Makes places to run."""

    def __init__(
        self, engine_id: str, starts: Starts, users: UsersStore, listener: Listener
    ) -> None:
        self._engine_id = engine_id
        self._starts = starts
        self._users = users
        self._listener = listener

    def begin(self) -> Starting:
        """What one start learns while it tries to get a place; the same for all its tries."""
        return self._starts.begin()

    @asynccontextmanager
    async def place(
        self, start: StartRequest, trace: str, starting: Starting
    ) -> AsyncIterator[tuple[Place, Taken]]:
        """Hold a place for a start; beside it what was made while it was taken. `starting`: from `begin`.

        Raises:
            AlreadyStarted: the same request was admitted before.
            Enqueued: it waits, as it wanted to if there is no place.
            InvalidField: the same request id came with another body.
            AgentNotFound, AgentDependencyMissing, RunNotFound: what it names is not there.
            UserEngineLimit, ThreadBusy, UserQueueLimit: there is no place.
            Capacity: agents are full.
            ChainDegraded: storage or agents are away.
        """
        taken = await self._starts.take(start, trace, starting)
        async with self._held(Place(start.principal, taken.entry)) as place:
            if taken.problem is not None:
                place.ended_before()
                raise taken.problem
            yield place, taken

    @asynccontextmanager
    async def adopted(self, principal: Principal, entry: ActiveRun) -> AsyncIterator[Place]:
        """Hold the place of a run whose engine is gone; the record names this engine already."""
        async with self._held(Place(principal, entry)) as place:
            yield place

    @asynccontextmanager
    async def promoted(
        self, principal: Principal, entry: ActiveRun, queued: QueuedRun
    ) -> AsyncIterator[Place]:
        """Hold the place of a run that had waited; the record names this engine already."""
        async with self._held(Place(principal, entry, queued)) as place:
            yield place

    @asynccontextmanager
    async def _held(self, place: Place) -> AsyncIterator[Place]:
        try:
            yield place
        finally:
            if place.is_done:
                await self._free(place)
            else:
                await self._hand_over(place)

    async def _free(self, place: Place) -> None:
        crash_point("engine.place.freeing")
        async for _ in retries():
            try:
                record = await self._users.change(
                    place.principal, lambda record: self._freed(record, place)
                )
            except NatsUnavailable as error:
                log.warning("a place is not freed yet", run=place.entry.run, cause=error.what)
            else:
                crash_point("engine.place.freed")
                break
        if place.returned is None:
            self._listener.freed(place.principal, record)
        else:
            self._listener.returned(place.principal)

    def _freed(self, record: UserRecord, place: Place) -> UserRecord:
        if place.returned is None:
            return release(record, place.entry, place.used)
        return give_back(record, place.entry, place.returned, self._listener.owner)

    async def _hand_over(self, place: Place) -> None:
        """Leave the run to another engine. If that cannot be stored, the missing heartbeat tells."""

        def unowned(record: UserRecord) -> UserRecord:
            entry = record.place(place.entry)
            return record if entry is None else _owned(record, entry, self._engine_id)

        crash_point("engine.place.handing")
        try:
            async with asyncio.timeout(HAND_OVER_S):
                await self._users.change(place.principal, unowned)
            crash_point("engine.place.handed")
        except (NatsUnavailable, TimeoutError):
            log.warning("a run was not handed over", run=place.entry.run)


def _owned(record: UserRecord, entry: ActiveRun, owner: str) -> UserRecord:
    if entry.owner != owner:
        return record
    active = tuple(
        replace(each, owner=UNOWNED) if each.run == entry.run else each for each in record.active
    )
    return replace(record, active=active)
