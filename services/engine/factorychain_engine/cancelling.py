"""Ends a run because its user wants it, from whichever engine was asked.

Invariant: the answer comes when the run's ending is in the log. Agents are told at the address that
the run's place names, so it does not matter which engine looks after the run, or whether any does.
The place is marked first, so that the run ends also if whoever was asked is gone by then: a marked run
begins no other attempt, and the engine that looks after it, or adopts it, ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from factorychain._core.component import detached
from factorychain._core.crash_points import crash_point
from factorychain._core.ids import Principal
from factorychain._core.logging import get_logger
from factorychain._core.stored import NatsUnavailable
from factorychain.errors import FactoryChainError
from factorychain_engine.admission.record import ActiveRun, to_cancel
from factorychain_engine.agents.layer import Agents
from factorychain_engine.lifeline import EndReason
from factorychain_engine.queue.queues import Queues
from factorychain_engine.records.outcomes import Outcomes
from factorychain_engine.records.users_store import UsersStore
from factorychain_engine.runs.supervised_runs import SupervisedRuns
from factorychain_engine.tokens.run_tokens import RunTokens

log = get_logger(__name__)

TELL_EVERY_S: Final = 2.0
NEARLY_S: Final = 0.02
"""A wait may return so much before its time."""


class Canceller:
    """Cancels runs."""

    def __init__(
        self,
        runs: SupervisedRuns,
        users: UsersStore,
        outcomes: Outcomes,
        agents: Agents,
        tokens: RunTokens,
        queues: Queues,
    ) -> None:
        self._queues = queues
        self._runs = runs
        self._users = users
        self._outcomes = outcomes
        self._agents = agents
        self._tokens = tokens

    async def cancel_run(
        self, principal: Principal, run: str, reason: EndReason, timeout_s: float
    ) -> bool:
        """End a run wherever it stands; False if it has not ended within `timeout_s`.

        Raises:
            ChainDegraded: storage does not answer. A run that this engine looks after is told to end all
                the same, but nobody else knows of it: to be asked again.
        """
        try:
            return await self._ended(principal, run, reason, timeout_s)
        except (NatsUnavailable, asyncio.CancelledError):  # or whoever asked has left
            here = self._runs.find(principal, run)
            if here is not None:
                here.cancel(reason)
            raise

    async def _ended(
        self, principal: Principal, run: str, reason: EndReason, timeout_s: float
    ) -> bool:
        clock: Callable[[], float] = asyncio.get_running_loop().time
        until_s = clock() + timeout_s
        over = False
        while True:
            record = (await self._users.read(principal)).record
            place = record.find(run)
            if place is None and record.waiting(run) is None:
                return True
            if over:
                return False
            left_s = max(0.0, until_s - clock())
            if place is None:
                over = await self._queues.end(principal, run, reason, left_s)
            elif await self._cancel(principal, place, reason, left_s):
                return True
            # Meanwhile it may have got a place, or have gone back to its queue or to another engine.
            over = over or clock() + NEARLY_S >= until_s

    async def _cancel(
        self, principal: Principal, entry: ActiveRun, reason: EndReason, left_s: float
    ) -> bool:
        """Whether it has ended; if not, it may be found elsewhere by now."""
        marked = entry if entry.cancel else await self._marked(principal, entry, reason)
        if marked is None:
            return False
        entry, reason = marked, EndReason(marked.cancel)
        here = self._runs.find(principal, entry.run)
        if here is None:
            return await self._cancel_elsewhere(principal, entry, reason, left_s)
        here.cancel(reason)
        done, _ = await asyncio.wait([here.ended], timeout=left_s)
        return bool(done) and here.ended.exception() is None

    async def _marked(
        self, principal: Principal, entry: ActiveRun, reason: EndReason
    ) -> ActiveRun | None:
        """The place with the mark; None: it is free."""
        record = await self._users.change(
            principal, lambda record: to_cancel(record, entry, reason.value)
        )
        crash_point("engine.cancel.marked")
        return record.place(entry)

    async def _cancel_elsewhere(
        self, principal: Principal, entry: ActiveRun, reason: EndReason, left_s: float
    ) -> bool:
        telling = detached(self._tell(principal, entry, reason), name=f"cancel {entry.run}")
        ended = await self._outcomes.wait(principal, entry, min(left_s, TELL_EVERY_S))
        # Agents hear of it also if whoever asked has left by now.
        telling.cancel()
        return ended is not None

    async def _tell(self, principal: Principal, entry: ActiveRun, reason: EndReason) -> None:
        context = self._tokens.run(principal, entry)
        try:
            await self._agents.cancel(context, entry.agents_address, reason.value, entry.trace)
        except FactoryChainError as error:
            log.info("a cancel was not answered", run=entry.run, reason=error.reason)
