"""Takes a place for a start: reads what the decision needs, decides, stores it by one
compare-and-set.

Invariant: a start is refused only on what is stored now and only after the log was asked whether a
holder has ended; and a start whose answer from storage was lost is never admitted twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from factorychain._core.crash_points import crash_point
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain._core.plans import UserLimits
from factorychain._core.stored import NatsUnavailable, WrongLastSequence
from factorychain._core.telemetry import counter
from factorychain.errors import ThreadBusy, UserEngineLimit
from factorychain_engine.admission import (
    ActiveRun,
    Admitted,
    AlreadyActive,
    Busy,
    Decision,
    Full,
    Totals,
    UserRecord,
    admit,
    release,
)
from factorychain_engine.endings import used_by
from factorychain_engine.entries import Entries
from factorychain_engine.limits import LimitsOf
from factorychain_engine.outcomes import Outcomes
from factorychain_engine.retry import retries
from factorychain_engine.started import AlreadyStarted, Started, Taken
from factorychain_engine.users_store import UsersStore, Versioned
from factorychain_engine.validation import OnBusy, StartRequest

_starts = counter("factorychain.engine.starts", "Starts by outcome")

IN_DOUBT_S: Final = 10.0
"""How long a start waits to learn whether its compare-and-set was stored."""

WAIT_FOR_INTERRUPT_S: Final = 30.0
"""How long a start waits for a run to end that it interrupts."""

ACCEPT_LOOKS: Final = 40
ACCEPT_LOOK_S: Final = 0.05
"""A repeated start looks so often, in this interval, whether agents have accepted the first."""

Interrupt = Callable[[Principal, ActiveRun, float], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class PlaceLimits:
    """What every place is bounded by."""

    user: LimitsOf
    wait_for_interrupt_s: float = WAIT_FOR_INTERRUPT_S


class Starts:
    """Takes places."""

    def __init__(
        self,
        *,
        users: UsersStore,
        entries: Entries,
        outcomes: Outcomes,
        interrupt: Interrupt,
        context: Callable[[Principal, ActiveRun], UserExecutionContext],
        limits: PlaceLimits,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._users = users
        self._entries = entries
        self._outcomes = outcomes
        self._interrupt = interrupt
        self._context = context
        self._limits = limits
        self._clock = clock

    async def take(self, start: StartRequest, trace: str) -> Taken:
        """Take a place; the caller must have it freed. See `ExecutionEngineFactory.place`."""
        admission = _Admission(self._clock() + self._limits.wait_for_interrupt_s)
        cached = True
        while True:
            async with self._users.turn(start.principal):
                began_s = time.perf_counter()
                known = self._users.cached(start.principal) if cached else None
                fresh = known is None
                known = known or await self._users.read(start.principal)
                wanted = await self._entries.make(start, known, trace)
                free = _without(known.record, admission.ended)
                decision = admit(free, wanted, self._limits_of(start).active_runs)
                if isinstance(decision, Admitted):
                    admission.tried.append(wanted)
                    taken = await self._stored(start, known, decision.record, admission, began_s)
                    if taken is not None:
                        return taken
            if fresh and not isinstance(decision, Admitted):
                mine = await self._refuse(start, decision, admission)
                if mine is not None:
                    context = self._context(start.principal, mine)
                    problem = await self._entries.seen_before(start)
                    return Taken(mine, context, time.perf_counter() - began_s, problem)
            cached = False

    async def _stored(
        self,
        start: StartRequest,
        known: Versioned,
        record: UserRecord,
        admission: _Admission,
        began_s: float,
    ) -> Taken | None:
        """The place, if the compare-and-set succeeds; None if the record was another.

        Meanwhile it is looked whether the start's run is an ended one, and the token is signed. The
        look comes after the user's record was read, so a run that has left that has a record.
        """
        wanted = admission.tried[-1]
        stored, problem, context = await asyncio.gather(
            self._store(start.principal, known, record, admission),
            self._entries.seen_before(start),
            self._signed(start.principal, wanted),
        )
        if not stored:
            return None
        _starts.add(1, {"outcome": "admitted" if problem is None else "repeated"})
        return Taken(wanted, context, time.perf_counter() - began_s, problem)

    def _limits_of(self, start: StartRequest) -> UserLimits:
        return self._limits.user(start.principal, start.plan)

    async def _signed(self, principal: Principal, entry: ActiveRun) -> UserExecutionContext:
        await asyncio.sleep(0)  # the requests to storage leave first
        return self._context(principal, entry)

    async def _store(
        self, principal: Principal, known: Versioned, record: UserRecord, admission: _Admission
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
        admission.tried.clear()
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
        self, start: StartRequest, decision: Decision, admission: _Admission
    ) -> ActiveRun | None:
        """Refuse, unless the place turns out to be this start's own, or one becomes free."""
        if isinstance(decision, AlreadyActive):
            if decision.entry in admission.tried:
                return decision.entry  # stored, although its answer was lost
            if not decision.entry.agents_address and await admission.may_wait():
                return None  # agents may still refuse it, and then it was never there
            raise AlreadyStarted(Started.of_entry(decision.entry, existing=True))
        before = await self._entries.seen_before(start)
        if before is not None:
            raise before
        holders = (decision.holder,) if isinstance(decision, Busy) else _holders(decision)
        if await self._note_ended(start.principal, holders, admission):
            return None
        if isinstance(decision, Full):
            _starts.add(1, {"outcome": "USER_ENGINE_LIMIT"})
            raise UserEngineLimit(
                self._limits_of(start).active_runs,
                retry_after_s=_retry_after_s(holders, self._clock()),
            )
        if start.on_busy is OnBusy.INTERRUPT and await self._interrupted(
            start, holders[0], admission
        ):
            return None
        _starts.add(1, {"outcome": "THREAD_BUSY"})
        raise ThreadBusy(holders[0].run)

    async def _interrupted(
        self, start: StartRequest, holder: ActiveRun, admission: _Admission
    ) -> bool:
        """End the thread's active run for this start; whether it has ended in time."""
        left_s = admission.until_s - self._clock()
        return left_s > 0 and await self._interrupt(start.principal, holder, left_s)

    async def _note_ended(
        self, principal: Principal, holders: tuple[ActiveRun, ...], admission: _Admission
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
        admission.ended += ended
        return bool(ended)


class _Admission:
    """What one start has learnt while it tries."""

    def __init__(self, until_s: float) -> None:
        self.until_s = until_s
        self.tried: list[ActiveRun] = []
        self.ended: list[tuple[ActiveRun, Totals]] = []
        self._waits = 0

    async def may_wait(self) -> bool:
        """Pause a little, a few times; False when that was enough."""
        self._waits += 1
        if self._waits > ACCEPT_LOOKS:
            return False
        await asyncio.sleep(ACCEPT_LOOK_S)
        return True


def _holders(decision: Decision) -> tuple[ActiveRun, ...]:
    return decision.holders if isinstance(decision, Full) else ()


def _without(record: UserRecord, ended: list[tuple[ActiveRun, Totals]]) -> UserRecord:
    for entry, used in ended:
        record = release(record, entry, used)
    return record


def _retry_after_s(holders: Iterable[ActiveRun], now_s: float) -> float:
    """A guess: runs that are old end soon; at least a second, at most until the first deadline."""
    first_deadline_s = min(each.deadline_s for each in holders)
    return round(min(max(1.0, first_deadline_s - now_s), 3.0), 1)
