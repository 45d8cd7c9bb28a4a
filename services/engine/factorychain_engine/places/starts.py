"""Takes a place for a start, or has it wait: reads what the decision needs, decides, stores it by one
compare-and-set.

Invariant: a start is refused only on what is stored now and only after the log was asked whether a
holder has ended; and a start whose answer from storage was lost is never admitted twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from factorychain._core.crash_points import crash_point
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain._core.plans import UserLimits
from factorychain._core.stored import NatsUnavailable, WrongLastSequence
from factorychain._core.telemetry import counter
from factorychain.errors import ChainDegraded, ThreadBusy, UserEngineLimit
from factorychain.types.v1.run_pb2 import AgentInfo
from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.record import (
    ActiveRun,
    Admitted,
    AlreadyActive,
    AlreadyQueued,
    Full,
    UserRecord,
    admit,
)
from factorychain_engine.limits import LimitsOf
from factorychain_engine.places.enqueuing import Enqueuing
from factorychain_engine.places.entries import Entries
from factorychain_engine.places.own_room import OwnRoom
from factorychain_engine.places.started import AlreadyStarted, Enqueued, Started, Taken
from factorychain_engine.places.starting import (
    Ahead,
    Look,
    Starting,
    holders_of,
    in_the_way,
    retry_after_s,
)
from factorychain_engine.records.endings import used_by
from factorychain_engine.records.outcomes import Outcomes
from factorychain_engine.records.users_store import UsersStore, Versioned
from factorychain_engine.retry import retries
from factorychain_engine.validation import OnBusy, StartRequest

_starts = counter("factorychain.engine.starts", "Starts by outcome")

IN_DOUBT_S: Final = 10.0
"""How long a start waits to learn whether its compare-and-set was stored."""

WAIT_FOR_INTERRUPT_S: Final = 30.0
"""How long a start waits for a run to end that it interrupts."""

Interrupt = Callable[[Principal, str, ActiveRun | None, float], Awaitable[bool]]
"""Ends what is in a thread, its active run (if there is one) and those that wait; whether they have
ended within so many seconds."""


@dataclass(frozen=True, slots=True)
class PlaceLimits:
    """What every place is bounded by."""

    user: LimitsOf
    own_room: OwnRoom
    wait_for_interrupt_s: float = WAIT_FOR_INTERRUPT_S


class Settled(Protocol):
    """What is known of storage (`Storage`)."""

    @property
    def settled(self) -> bool: ...

    async def wait_settled(self) -> None: ...


class Starts:
    """Takes places."""

    def __init__(
        self,
        *,
        users: UsersStore,
        entries: Entries,
        enqueuing: Enqueuing,
        outcomes: Outcomes,
        storage: Settled,
        interrupt: Interrupt,
        context: Callable[[Principal, ActiveRun], UserExecutionContext],
        limits: PlaceLimits,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._users = users
        self._entries = entries
        self._enqueuing = enqueuing
        self._outcomes = outcomes
        self._storage = storage
        self._interrupt = interrupt
        self._context = context
        self._limits = limits
        self._clock = clock

    def begin(self) -> Starting:
        """For one start; it is the same for all its tries to `take` a place."""
        return Starting(self._clock() + self._limits.wait_for_interrupt_s)

    async def take(self, start: StartRequest, trace: str, starting: Starting) -> Taken:
        """Take a place; the caller must have it freed. See `ExecutionEngineFactory.place`."""
        sure = False
        while True:
            await self._storage.wait_settled()
            since_s = asyncio.get_running_loop().time()
            ahead = await self._ahead(start, starting)
            async with self._users.turn(start.principal):
                began_s = time.perf_counter()
                known = await self._known(start.principal, since_s if sure else 0.0)
                if not self._storage.settled:
                    continue  # the record may be one that has lost its places
                if ahead.is_there and not known.record.has(start.run):
                    continue  # it has ended meanwhile: agents are asked after all
                fresh = known.asked_at_s >= since_s
                wanted = await self._entries.make(start, known, trace, ahead.agent)
                free = starting.without_ended(known.record)
                most = self._limits_of(start).active_runs if ahead.room else 0
                decision = admit(free, wanted, most)
                if isinstance(decision, Admitted):
                    wanted = await self._entries.placed(start, known, wanted)
                    starting.tried.append(wanted)
                    record = decision.record(wanted)
                    taken = await self._stored(start, known, record, starting, began_s)
                    if taken is not None:
                        return taken
            if fresh and not isinstance(decision, Admitted):
                mine = await self._refuse(start, Look(known, wanted, decision), starting)
                if mine is not None:
                    context = self._context(start.principal, mine)
                    problem = await self._entries.seen_before(start)
                    return Taken(mine, context, time.perf_counter() - began_s, problem)
            sure = True

    async def _ahead(self, start: StartRequest, starting: Starting) -> Ahead:
        """What only agents know. It is asked before the user's turn, which nobody holds while they are slow;
        and not for a start that is there already, which is found also while agents are away.
        """
        known = await self._known(start.principal, 0.0)
        there = known.record.find(start.run) or known.record.waiting(start.run)
        if there is not None:
            return Ahead(AgentInfo(name=there.agent), room=True, is_there=True)
        room = await self._entries.room(start, may_wait=starting.may_wait_for_place(start))
        return Ahead(await self._entries.resolve(start.agent), room, is_there=False)

    async def _known(self, principal: Principal, since_s: float) -> Versioned:
        """The record as storage has had it after `since_s`: others may have asked since."""
        known = self._users.cached(principal)
        if known is None or known.asked_at_s < since_s:
            return await self._users.read(principal)
        return known

    async def _stored(
        self,
        start: StartRequest,
        known: Versioned,
        record: UserRecord,
        starting: Starting,
        began_s: float,
    ) -> Taken | None:
        """The place, if the compare-and-set succeeds; None if the record was another.

        Meanwhile it is looked whether the start's run is an ended one, and the token is signed. The
        look comes after the user's record was read, so a run that has left that has a record.
        """
        wanted = starting.tried[-1]
        with self._limits.own_room.taking():
            stored, problem, context = await asyncio.gather(
                self._store(start.principal, known, record, starting),
                self._entries.seen_before(start),
                self._signed(start.principal, wanted),
            )
        if not stored:
            return None
        _starts.add(1, {"outcome": "admitted" if problem is None else "repeated"})
        return Taken(wanted, context, time.perf_counter() - began_s, problem)

    async def _enqueue(self, start: StartRequest, look: Look, starting: Starting) -> None:
        """Have the start wait; returns if that was not stored, or nobody knows.

        Raises:
            Enqueued: it waits.
            UserQueueLimit: as many wait as may.
        """
        free = starting.without_ended(look.known.record)
        wanted = await self._entries.placed(start, look.known, look.wanted)
        try:
            queued = await self._enqueuing.enqueue(start, look.known, free, wanted)
        except NatsUnavailable as error:
            if not error.sent:
                raise
            await self._reachable_again(start.principal, error)
            return
        if queued is not None:
            _starts.add(1, {"outcome": "queued"})
            raise Enqueued(queued)

    def _limits_of(self, start: StartRequest) -> UserLimits:
        return self._limits.user(start.principal, start.plan)

    async def _signed(self, principal: Principal, entry: ActiveRun) -> UserExecutionContext:
        await asyncio.sleep(0)  # the requests to storage leave first
        return self._context(principal, entry)

    async def _store(
        self, principal: Principal, known: Versioned, record: UserRecord, starting: Starting
    ) -> bool:
        """One compare-and-set; whether it was stored. After a lost answer the record is read again."""
        crash_point("engine.start.admitting")
        try:
            await self._users.replace(principal, known, record)
        except WrongLastSequence:
            return False
        except NatsUnavailable as error:
            if not error.sent:
                raise
            await self._reachable_again(principal, error)
            return False
        starting.tried.clear()
        crash_point("engine.start.admitted")
        return True

    async def _reachable_again(self, principal: Principal, cause: NatsUnavailable) -> None:
        """Wait until the record can be read, so that it is known whether the start was stored.

        Raises:
            NatsUnavailable: it takes too long. If the start was stored after all, this engine's
                clean-up finds a place that nobody holds and ends its run.
        """
        until_s = self._clock() + IN_DOUBT_S
        async for _ in retries():
            try:
                await self._users.read(principal)
            except NatsUnavailable:
                if self._clock() >= until_s:
                    raise cause from None
                continue
            return

    async def _refuse(
        self, start: StartRequest, look: Look, starting: Starting
    ) -> ActiveRun | None:
        """Refuse, unless the place turns out to be this start's own, one becomes free, or it waits."""
        decision = look.decision
        if isinstance(decision, AlreadyActive):
            return await self._already_active(decision.entry, starting)
        if isinstance(decision, AlreadyQueued):
            raise AlreadyStarted(await self._already_queued(start.principal, decision.entry))
        before = await self._entries.seen_before(start)
        if before is not None:
            raise before
        holders = holders_of(decision)
        if await self._note_ended(start.principal, holders, starting):
            return None
        if start.on_busy is OnBusy.ENQUEUE or (
            starting.may_wait_for_place(start) and isinstance(decision, Full)
        ):
            await self._enqueue(start, look, starting)
            return None
        if isinstance(decision, Full):
            _starts.add(1, {"outcome": "USER_ENGINE_LIMIT"})
            raise UserEngineLimit(
                self._limits_of(start).active_runs,
                retry_after_s=retry_after_s(holders, self._clock()),
            )
        if start.on_busy is OnBusy.INTERRUPT and await self._interrupted(start, holders, starting):
            return None
        _starts.add(1, {"outcome": "THREAD_BUSY"})
        raise ThreadBusy(in_the_way(decision))

    async def _already_active(self, entry: ActiveRun, starting: Starting) -> ActiveRun | None:
        if replace(entry, cancel="") in starting.tried:
            return entry  # stored, although its answer was lost
        is_sure = entry.agents_address or entry.queued_at_s or entry.adoptions
        if not is_sure:  # agents may still refuse it, and then it was never there
            if await starting.may_wait():
                return None
            raise ChainDegraded("agents")
        raise AlreadyStarted(Started.of_entry(entry, existing=True))

    async def _already_queued(self, principal: Principal, entry: QueuedRun) -> Started:
        record = (await self._users.read(principal)).record
        return Started.of_queued(entry, record.position(entry.run), existing=True)

    async def _interrupted(
        self, start: StartRequest, holders: tuple[ActiveRun, ...], starting: Starting
    ) -> bool:
        """End what is in the thread for this start; whether it has ended in time."""
        left_s = starting.until_s - self._clock()
        holder = holders[0] if holders else None
        starting.interrupted = left_s > 0 and await self._interrupt(
            start.principal, start.thread, holder, left_s
        )
        return starting.interrupted

    async def _note_ended(
        self, principal: Principal, holders: tuple[ActiveRun, ...], starting: Starting
    ) -> bool:
        """Whether a holder has ended: its user may have seen that before its place was freed."""
        outcomes = await asyncio.gather(
            *(self._outcomes.of_place(principal, each) for each in holders)
        )
        ended = [
            (entry, used_by(run, entry))
            for entry, run in zip(holders, outcomes, strict=True)
            if run is not None
        ]
        starting.ended += ended
        return bool(ended)
