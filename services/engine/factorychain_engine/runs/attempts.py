"""Starts a run again whose agents are lost, as its next attempt.

Invariant: the number of an attempt is taken by a compare-and-set of the user's record before agents hear of
it, by the engine that has been the run's owner, as the record names it, ever since the one before. So one
attempt is handed to agents once, and whatever an earlier one still says, or wants to store, is refused by
its number.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from factorychain._core.crash_points import crash_point
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain._core.logging import get_logger
from factorychain._core.stored import NatsUnavailable
from factorychain._core.telemetry import counter
from factorychain.agents.v1.agents_pb2 import ExecuteRequest
from factorychain.errors import Capacity, ChainDegraded
from factorychain_engine.admission.record import ActiveRun, begun, next_attempt, stopped
from factorychain_engine.agents.layer import Agents, Life, NotAccepted
from factorychain_engine.records.outcomes import Outcomes
from factorychain_engine.records.store import Records
from factorychain_engine.records.users_store import UsersStore
from factorychain_engine.retry import retries
from factorychain_engine.validation import resume_of

log = get_logger(__name__)
_again: Final = counter("factorychain.engine.later_attempts", "Lost runs that were started again")

T = TypeVar("T")


class TakenOver(Exception):
    """Another engine looks after the run."""


class Attempts:
    """Later attempts of runs. Whoever waits too long for one of these cancels it."""

    def __init__(
        self, users: UsersStore, records: Records, outcomes: Outcomes, agents: Agents
    ) -> None:
        self._users = users
        self._records = records
        self._outcomes = outcomes
        self._agents = agents

    async def request(self, principal: Principal, entry: ActiveRun) -> ExecuteRequest | None:
        """What the run's first attempt was given, as it is recorded; None: not all of it is there."""
        return await _stored(lambda: self._recorded(principal, entry))

    async def take(
        self, principal: Principal, entry: ActiveRun, deadline_s: float
    ) -> ActiveRun | None:
        """Take the attempt after `entry`'s, which may live until `deadline_s`; None: the run has ended.
        One that is to end (`cancel`) begins no other.

        Raises:
            TakenOver: another engine looks after the run.
        """
        if await _stored(lambda: self._outcomes.of_place(principal, entry)) is not None:
            return None
        crash_point("engine.attempt.taking")
        record = await _stored(
            lambda: self._users.change(
                principal, lambda record: next_attempt(record, entry, deadline_s)
            )
        )
        last = stopped(record, entry)
        if last is not None:
            return last
        found = begun(record, entry)
        if found is None:
            raise TakenOver(entry.run)
        _again.add(1)
        crash_point("engine.attempt.taken")
        return found

    async def execute(
        self, context: UserExecutionContext, request: ExecuteRequest, trace: str
    ) -> Life | None:
        """Hand the attempt to agents as soon as there are some that take it; None: nobody knows whether
        they have it.
        """
        async for _ in retries():
            try:
                await self._agents.ready()
            except (Capacity, ChainDegraded):
                continue
            try:
                return await self._agents.execute(context, request, trace)
            except NotAccepted as error:
                reason = error.refusal.reason
                log.info("an attempt is not accepted yet", run=context.run, reason=reason)
            except ChainDegraded:
                return None
        raise AssertionError("unreachable: retries() never ends")

    async def _recorded(self, principal: Principal, entry: ActiveRun) -> ExecuteRequest | None:
        stored = await self._records.run_in(principal, entry.thread, entry.run)
        if stored is None or not stored.run.input_json:
            return None
        run = stored.run
        if entry.has_context and not run.context:
            return None  # made again from the log, which does not have it
        request = ExecuteRequest(
            input_json=run.input_json,
            metadata_json=run.metadata_json,
            context=run.context,
            replaces=run.replaces,
            resumes=run.resumes,
        )
        if run.resumes:
            asked = await self._records.run_in(principal, entry.thread, run.resumes)
            if asked is None:
                return None
            request.resume_json = resume_of(asked.run).decode()
        return request


async def _stored(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer of storage, however long it is away."""
    async for _ in retries():
        try:
            return await ask()
        except NatsUnavailable as error:
            log.warning("a lost run waits for storage", cause=error.what)
    raise AssertionError("unreachable: retries() never ends")
