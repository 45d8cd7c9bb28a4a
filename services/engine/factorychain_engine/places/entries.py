"""What a start needs to know before it takes a place: where its thread's log ends, its agent, and
whether it was there before.

Invariant: an entry is right for the very revision of the user's record that it was made for, so that
the compare-and-set which stores it proves it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from factorychain._core.ids import Principal
from factorychain._core.log_reader import LogPosition, ThreadLogReader
from factorychain.errors import Capacity, FactoryChainError, RunNotFound
from factorychain.types.v1.run_pb2 import AgentInfo
from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.queueing import as_place
from factorychain_engine.admission.record import ActiveRun, UserRecord, check_same_request
from factorychain_engine.limits import LimitsOf
from factorychain_engine.places.started import AlreadyStarted, Started
from factorychain_engine.records.outcomes import Outcomes
from factorychain_engine.records.store import Records
from factorychain_engine.records.stored_run import StoredRun
from factorychain_engine.records.users_store import Versioned
from factorychain_engine.validation import StartRequest

Resolve = Callable[[str], Awaitable[AgentInfo]]


class Entries:
    """Makes the entries of starts."""

    def __init__(
        self,
        *,
        engine_id: str,
        records: Records,
        log: ThreadLogReader,
        outcomes: Outcomes,
        ready: Callable[[Principal], Awaitable[None]],
        resolve: Resolve,
        attempts: int,
        limits: LimitsOf,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`ready` returns when agents can be asked to take a run of a user (`Turns`). `attempts`: how often a
        run may be started whose agent allows it to be started again.
        """
        self._ready = ready
        self._attempts = attempts
        self._engine_id = engine_id
        self._records = records
        self._log = log
        self._outcomes = outcomes
        self._resolve = resolve
        self._limits = limits
        self._clock = clock

    async def room(self, start: StartRequest, *, may_wait: bool) -> bool:
        """Whether agents can be asked to take the run; False if they are full and it may wait.

        Raises:
            Capacity: they are full.
            ChainDegraded: they are away.
        """
        try:
            await self._ready(start.principal)
        except Capacity:
            if not may_wait:
                raise
            return False
        return True

    async def resolve(self, agent: str) -> AgentInfo:
        """The agent to start.

        Raises:
            AgentNotFound, AgentDependencyMissing: it is not there.
            ChainDegraded: agents are away.
        """
        return await self._resolve(agent)

    async def make(
        self, start: StartRequest, known: Versioned, trace: str, agent: AgentInfo
    ) -> ActiveRun:
        """The entry that the start is to have in the user's record `known`, but for where its thread's log
        ends (`placed`): what is refused need not know.

        Raises:
            RunNotFound: what it replaces is not there.
            ChainDegraded: storage is away.
        """
        if start.replaces:
            await self._check_replaced(start, known.record)
        limits = self._limits(start.principal, start.plan)
        now_s = self._clock()
        return ActiveRun(
            run=start.run,
            thread=start.thread,
            agent=agent.name,
            request_hash=start.request_hash,
            owner=self._engine_id,
            admitted_at_s=now_s,
            deadline_s=now_s + _lifetime_s(agent, limits.lifetime_s),
            base=0,
            base_seq=0,
            base_epoch=int(now_s * 1000),
            trace=trace,
            replaces=start.replaces,
            attempts=self._attempts if agent.repeat_safe else 1,
            has_context=bool(start.context),
            plan=start.plan,
        )

    async def placed(self, start: StartRequest, known: Versioned, entry: ActiveRun) -> ActiveRun:
        """The entry with where its thread's log ends.

        Raises:
            ChainDegraded: storage is away.
        """
        base, base_seq, base_epoch = await self._base(start, known)
        epoch = base_epoch or entry.base_epoch
        return replace(entry, base=base, base_seq=base_seq, base_epoch=epoch)

    async def begin(self, principal: Principal, queued: QueuedRun) -> ActiveRun:
        """The place of a run that waits, beginning now. Read the user's record first: as long as that
        stays the run has not ended, so its ending would come after what is read here.

        Raises:
            AgentNotFound, AgentDependencyMissing: its agent is not there any more.
            Capacity: agents are full.
            ChainDegraded: storage or agents are away.
        """
        await self._ready(principal)
        agent = await self._resolve(queued.agent)
        last = await self._log.last(principal, queued.thread)
        limits = self._limits(principal, queued.plan)
        now_s = self._clock()
        waited = replace(
            as_place(queued),
            owner=self._engine_id,
            admitted_at_s=now_s,
            deadline_s=now_s + _lifetime_s(agent, limits.lifetime_s),
            attempts=self._attempts if agent.repeat_safe else 1,
        )
        if last is None:
            return replace(waited, base=0, base_seq=0)
        return replace(waited, base=last.stream_seq, base_seq=last.seq, base_epoch=last.epoch)

    async def _base(self, start: StartRequest, known: Versioned) -> tuple[int, int, int]:
        """Where the thread's log ends: stream sequence, seq and epoch; zeros for an empty thread.

        It is not read when the run that left the thread last is known together with the user's record:
        had anybody been in the thread since, the compare-and-set would fail, and it is read then.
        """
        run = known.last_runs.get(start.thread, "")
        end = self._outcomes.end_after(start.principal, start.thread, run) if run else None
        if end is not None:
            return end.stream_seq, end.seq, end.epoch
        position = await self._log.last(start.principal, start.thread)
        if _is_stale(position, known.record, start.thread):
            position = await self._log.last(start.principal, start.thread)
        return (
            (0, 0, 0) if position is None else (position.stream_seq, position.seq, position.epoch)
        )

    async def seen_before(self, start: StartRequest) -> Exception | None:
        """What to answer instead of starting the run; None: it is new."""
        try:
            stored = await self._records.find_run(start.principal, start.run)
            return None if stored is None else _already(stored, start)
        except FactoryChainError as error:
            return error

    async def _check_replaced(self, start: StartRequest, record: UserRecord) -> None:
        if await self._records.run_in(start.principal, start.thread, start.replaces) is None:
            there = record.find(start.replaces) or record.waiting(start.replaces)
            if there is None or there.thread != start.thread:
                raise RunNotFound("replaces: no such run in this thread")


def _already(stored: StoredRun, start: StartRequest) -> AlreadyStarted:
    check_same_request(stored.request_hash, start.request_hash)
    return AlreadyStarted(Started.of_record(stored.run))


def _is_stale(position: LogPosition | None, record: UserRecord, thread: str) -> bool:
    """Whether the log was read before the thread's last run ended, and the user's record after."""
    return position is not None and not position.ended and record.in_thread(thread) is None


def _lifetime_s(agent: AgentInfo, operators_s: float) -> float:
    return min(agent.lifetime_s, operators_s) if agent.lifetime_s > 0 else operators_s
