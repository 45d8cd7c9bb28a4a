"""Ends a run because its user wants it, from whichever engine was asked.

Invariant: the answer comes when the run's ending is in the log. Agents are told at the address that
the run's place names, so it does not matter which engine looks after the run, or whether any does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from factorychain._core.component import detached
from factorychain._core.ids import Principal
from factorychain._core.logging import get_logger
from factorychain.errors import FactoryChainError
from factorychain.types.v1.run_pb2 import Run
from factorychain_engine.admission import ActiveRun
from factorychain_engine.agents_layer import Agents
from factorychain_engine.lifeline import EndReason
from factorychain_engine.outcomes import Outcomes
from factorychain_engine.queues import Queues
from factorychain_engine.run_tokens import RunTokens
from factorychain_engine.runs import SupervisedRun
from factorychain_engine.supervised_runs import SupervisedRuns
from factorychain_engine.users_store import UsersStore

log = get_logger(__name__)

TELL_EVERY_S: Final = 2.0


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
            ChainDegraded: storage does not answer, or the engine that has the run stops.
        """
        clock: Callable[[], float] = asyncio.get_running_loop().time
        until_s = clock() + timeout_s
        while True:
            record = (await self._users.read(principal)).record
            left_s = max(0.0, until_s - clock())
            place = record.find(run)
            if place is not None:
                return await self.cancel(principal, place, reason, left_s) is not None
            if record.waiting(run) is None:
                return True
            # What waits now may have a place when this was stored.
            if await self._queues.end(principal, run, reason, left_s) or clock() >= until_s:
                return (await self._users.read(principal)).record.waiting(run) is None

    async def cancel(
        self, principal: Principal, entry: ActiveRun, reason: EndReason, timeout_s: float
    ) -> Run | None:
        """The run as it ended; None if it has not within `timeout_s`.

        Raises:
            ChainDegraded: storage does not answer.
        """
        here = self._runs.find(principal, entry.run)
        if here is not None:
            return await self._cancel_here(here, reason, timeout_s)
        return await self._cancel_elsewhere(principal, entry, reason, timeout_s)

    async def _cancel_here(
        self, run: SupervisedRun, reason: EndReason, timeout_s: float
    ) -> Run | None:
        run.cancel(reason)
        done, _ = await asyncio.wait([run.ended], timeout=timeout_s)
        return run.ended.result() if done else None

    async def _cancel_elsewhere(
        self, principal: Principal, entry: ActiveRun, reason: EndReason, timeout_s: float
    ) -> Run | None:
        clock: Callable[[], float] = asyncio.get_running_loop().time
        until_s = clock() + timeout_s
        while True:
            left_s = max(0.0, until_s - clock())
            telling = detached(self._tell(principal, entry, reason), name=f"cancel {entry.run}")
            try:
                ended = await self._outcomes.wait(principal, entry, min(left_s, TELL_EVERY_S))
            finally:
                telling.cancel()
            if ended is not None or clock() + 0.01 >= until_s:
                return ended
            # Meanwhile agents may have accepted it, or another engine have adopted it.
            record = (await self._users.read(principal)).record
            entry = record.find(entry.run) or entry

    async def _tell(self, principal: Principal, entry: ActiveRun, reason: EndReason) -> None:
        context = self._tokens.run(principal, entry)
        try:
            await self._agents.cancel(context, entry.agents_address, reason.value, entry.trace)
        except FactoryChainError as error:
            log.info("a cancel was not answered", run=entry.run, reason=error.reason)
