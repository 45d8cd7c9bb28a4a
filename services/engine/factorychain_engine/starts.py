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

from factorychain._core.ids import Principal
from factorychain._core.log_reader import LogPosition, ThreadLogReader
from factorychain._core.stored import NatsUnavailable, WrongLastSequence
from factorychain._core.telemetry import counter
from factorychain.errors import RunNotFound, ThreadBusy, UserEngineLimit
from factorychain.types.v1.run_pb2 import AgentInfo
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
    check_same_request,
    release,
)
from factorychain_engine.endings import used_by
from factorychain_engine.outcomes import Outcomes
from factorychain_engine.records import Records
from factorychain_engine.retry import retries
from factorychain_engine.started import AlreadyStarted, Started, Taken
from factorychain_engine.stored_run import StoredRun
from factorychain_engine.users_store import UsersStore, Versioned
from factorychain_engine.validation import OnBusy, StartRequest

_starts = counter("factorychain.engine.starts", "Starts by outcome")

IN_DOUBT_S: Final = 10.0
"""How long a start waits to learn whether its compare-and-set was stored."""

ACCEPT_LOOKS: Final = 40
ACCEPT_LOOK_S: Final = 0.05
"""A repeated start looks so often, in this interval, whether agents have accepted the first."""

Resolve = Callable[[str], Awaitable[AgentInfo]]
Interrupt = Callable[[Principal, ActiveRun, float], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class PlaceLimits:
    """What every place is bounded by."""

    user_max_runs: int
    lifetime_s: float
    wait_for_interrupt_s: float = 30.0


class Starts:
    """Takes places."""

    def __init__(
        self,
        *,
        engine_id: str,
        users: UsersStore,
        records: Records,
        log: ThreadLogReader,
        outcomes: Outcomes,
        resolve: Resolve,
        interrupt: Interrupt,
        limits: PlaceLimits,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine_id = engine_id
        self._users = users
        self._records = records
        self._log = log
        self._outcomes = outcomes
        self._resolve = resolve
        self._interrupt = interrupt
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
                # The user's record is read before the run's: a run that has left the one is in the
                # other.
                known = known or await self._users.read(start.principal)
                wanted = await self._wanted(start, known.record, trace)
                free = _without(known.record, admission.ended)
                decision = admit(free, wanted, self._limits.user_max_runs)
                if isinstance(decision, Admitted):
                    admission.tried.append(wanted)
                    if await self._store(start.principal, known, decision.record, admission):
                        _starts.add(1, {"outcome": "admitted"})
                        return Taken(wanted, time.perf_counter() - began_s)
            if fresh and not isinstance(decision, Admitted):
                mine = await self._refuse(start, decision, admission)
                if mine is not None:
                    return Taken(mine, time.perf_counter() - began_s)
            cached = False

    async def _wanted(self, start: StartRequest, record: UserRecord, trace: str) -> ActiveRun:
        """The entry of this start, with all that is read for it read at once."""
        position, stored, _ = await asyncio.gather(
            self._log.last(start.principal, start.thread),
            self._records.find_run(start.principal, start.run),
            self._check_replaced(start, record),
        )
        if stored is not None and record.find(start.run) is None:
            raise _already(stored, start)
        if _is_stale(position, record, start.thread):
            position = await self._log.last(start.principal, start.thread)
        agent = await self._agent(start, record)
        now_s = self._clock()
        return ActiveRun(
            run=start.run,
            thread=start.thread,
            agent=agent.name,
            request_hash=start.request_hash,
            owner=self._engine_id,
            admitted_at_s=now_s,
            deadline_s=now_s + _lifetime_s(agent, self._limits.lifetime_s),
            base=0 if position is None else position.stream_seq,
            base_seq=0 if position is None else position.seq,
            base_epoch=int(now_s * 1000) if position is None else position.epoch,
            trace=trace,
            replaces=start.replaces,
        )

    async def _agent(self, start: StartRequest, record: UserRecord) -> AgentInfo:
        # A repeated start finds its run also when its agent is gone by now.
        active = record.find(start.run)
        return AgentInfo(name=active.agent) if active else await self._resolve(start.agent)

    async def _check_replaced(self, start: StartRequest, record: UserRecord) -> None:
        if not start.replaces:
            return
        if await self._records.run_in(start.principal, start.thread, start.replaces) is None:
            active = record.find(start.replaces)
            if active is None or active.thread != start.thread:
                raise RunNotFound("replaces: no such run in this thread")

    async def _store(
        self, principal: Principal, known: Versioned, record: UserRecord, admission: _Admission
    ) -> bool:
        """One compare-and-set; whether it was stored. After a lost answer the record is read again."""
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
        holders = (decision.holder,) if isinstance(decision, Busy) else _holders(decision)
        if await self._note_ended(start.principal, holders, admission):
            return None
        if isinstance(decision, Full):
            _starts.add(1, {"outcome": "USER_ENGINE_LIMIT"})
            raise UserEngineLimit(
                self._limits.user_max_runs,
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
        ended = {each.run: used_by(each) for each in outcomes if each is not None}
        admission.ended.update(ended)
        return bool(ended)


class _Admission:
    """What one start has learnt while it tries."""

    def __init__(self, until_s: float) -> None:
        self.until_s = until_s
        self.tried: list[ActiveRun] = []
        self.ended: dict[str, Totals] = {}
        self._waits = 0

    async def may_wait(self) -> bool:
        """Pause a little, a few times; False when that was enough."""
        self._waits += 1
        if self._waits > ACCEPT_LOOKS:
            return False
        await asyncio.sleep(ACCEPT_LOOK_S)
        return True


def _already(stored: StoredRun, start: StartRequest) -> AlreadyStarted:
    check_same_request(stored.request_hash, start.request_hash)
    return AlreadyStarted(Started.of_record(stored.run))


def _holders(decision: Decision) -> tuple[ActiveRun, ...]:
    return decision.holders if isinstance(decision, Full) else ()


def _without(record: UserRecord, ended: dict[str, Totals]) -> UserRecord:
    for run, used in ended.items():
        record = release(record, run, used)
    return record


def _is_stale(position: LogPosition | None, record: UserRecord, thread: str) -> bool:
    """Whether the log was read before the thread's last run ended, and the user's record after."""
    return position is not None and not position.ended and record.in_thread(thread) is None


def _lifetime_s(agent: AgentInfo, operators_s: float) -> float:
    return min(agent.lifetime_s, operators_s) if agent.lifetime_s > 0 else operators_s


def _retry_after_s(holders: Iterable[ActiveRun], now_s: float) -> float:
    """A guess: runs that are old end soon; at least a second, at most until the first deadline."""
    first_deadline_s = min(each.deadline_s for each in holders)
    return round(min(max(1.0, first_deadline_s - now_s), 3.0), 1)
