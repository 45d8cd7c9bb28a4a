"""One run under supervision: from the place that it holds to its ending in the log.

Invariant: supervision goes on until an ending is in the log: the agent's own, or, when an attempt was
given up, the one that `Settler` writes. A run whose agents are lost may begin another attempt instead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from factorychain._core.component import detached
from factorychain._core.crash_points import crash_point
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain._core.logging import get_logger
from factorychain.agents.v1.agents_pb2 import ExecuteRequest
from factorychain.errors import FactoryChainError
from factorychain.types.v1.run_pb2 import Run
from factorychain_engine.admission.record import ActiveRun, UserRecord
from factorychain_engine.agents.layer import Agents, NotAccepted
from factorychain_engine.lifeline import EndReason, LifeLimits
from factorychain_engine.records.outcomes import Outcomes
from factorychain_engine.records.stored_run import StoredRun
from factorychain_engine.retry import HEALTHY_AFTER_S, Backoff
from factorychain_engine.runs.at_agents import AtAgents, Reach
from factorychain_engine.runs.attempts import Attempts
from factorychain_engine.runs.settling import Settler
from factorychain_engine.tokens.run_tokens import RunTokens

log = get_logger(__name__)


class SupervisedRun:
    """A run that this engine looks after."""

    def __init__(
        self,
        principal: Principal,
        entry: ActiveRun,
        *,
        agents: Agents,
        tokens: RunTokens,
        outcomes: Outcomes,
        settler: Settler,
        attempts: Attempts,
        on_again: Callable[[SupervisedRun], None],
        limits: LifeLimits,
        context: UserExecutionContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`context` is the run's for agents, if it was made already. `on_again` is called when agents have
        another attempt of it.
        """
        self.principal = principal
        self.ended: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        # Often nobody waits for it.
        self.ended.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._agents = agents
        self._outcomes = outcomes
        self._settler = settler
        self._attempts = attempts
        self._on_again = on_again
        self._clock = clock
        self._reach = Reach(agents, tokens, clock)
        self._request: ExecuteRequest | None = None  # kept only for another attempt
        self._to_end = asyncio.Event()
        self.over = False
        """Whether this engine has stopped to look after it; its place is freed, or handed over."""
        # One that was begun elsewhere may have waited for its user.
        known = context is not None
        self._at = AtAgents(principal, entry, self._reach, limits, known=known, context=context)
        self._hear_of_cancel(entry)

    @property
    def entry(self) -> ActiveRun:
        """Its place, with the attempt that it is at."""
        return self._at.entry

    @property
    def place(self) -> ActiveRun:
        """Its place, as it stands in the user's record once everything is noted there."""
        return replace(
            self.entry,
            agents_address=self.agents_address,
            agents_boot=self.agents_boot,
            cancel=self.cancel_reason or "",
        )

    @property
    def agents_address(self) -> str:
        """The agents replica that has the run; empty until one has accepted it."""
        return self._at.address

    @property
    def agents_boot(self) -> str:
        return self._at.boot

    @property
    def cancel_reason(self) -> EndReason | None:
        """Why the run is to end; None: it is not."""
        return self._at.lifeline.cancel_reason

    @property
    def context(self) -> UserExecutionContext:
        """The run's, with a token that is valid for a while."""
        return self._at.context

    # --- from outside -----------------------------------------------------------------------

    def cancel(self, reason: EndReason) -> None:
        """Have the run ended; `ended` is set when it has."""
        self._at.lifeline.cancel(reason)
        self.tick()

    def look_at(self, record: UserRecord) -> None:
        """Its user's record was read: another engine may have noted there that the run is to end."""
        found = record.place(self.entry)
        if found is not None and found.cancel and self.cancel_reason is None:
            self._hear_of_cancel(found)
            self.tick()

    def _hear_of_cancel(self, entry: ActiveRun) -> None:
        if entry.cancel:
            self._at.lifeline.cancel(EndReason(entry.cancel))

    def tick(self) -> None:
        """Look after the run's limits; called by the clean-up loop."""
        self._at.tick()
        if self.cancel_reason is not None:
            self._to_end.set()

    def close(self) -> None:
        """Let go of the streams; the run itself goes on."""
        self._at.close()

    # --- the run's life ---------------------------------------------------------------------

    async def begin(self, request: ExecuteRequest) -> bool:
        """Hand the run to agents. False: nobody knows whether they have it; `finish` finds out.

        Raises:
            NotAccepted: they refused.
        """
        if self.entry.attempts > 1:
            self._request = request
        crash_point("engine.execute.sending")
        try:
            life = await self._agents.execute(self.context, request, self.entry.trace)
        except NotAccepted:
            raise
        except FactoryChainError as error:
            log.warning(
                "the agents did not answer a start", run=self.entry.run, reason=error.reason
            )
            return False
        crash_point("engine.execute.accepted")
        self._at.follow(life)
        return True

    async def finish(self, known: StoredRun | None = None) -> Run:
        """Look after the run until its ending is in the log and in its record.

        Raises:
            TakenOver: another engine does that by now.
        """
        try:
            while True:
                ended = await self._followed_or_given_up(known)
                if ended is not None:
                    return ended
                reason = self._at.given_up.result()
                if reason is not EndReason.AGENT_LOST or not await self._again():
                    reason = self.cancel_reason or reason
                    return await self._settler.settle(self.principal, self.entry, reason)
        finally:
            self.over = True
            self.close()

    async def _followed_or_given_up(self, known: StoredRun | None) -> Run | None:
        following = detached(self._followed(known), name=f"follow {self.entry.run}")
        either: list[asyncio.Future[Any]] = [following, self._at.given_up]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return following.result() if following.done() else None
        finally:
            following.cancel()
            await asyncio.wait([following])

    async def _followed(self, known: StoredRun | None) -> Run | None:
        """The run as it ended; None when its attempt was given up."""
        backoff, at = Backoff(), self._at
        while True:
            heard_s = await at.listen()
            ended = await self._look(known)
            if ended is not None or at.given_up.done():
                return ended
            if at.lost:
                at.give_up(EndReason.AGENT_LOST)
                return None
            if heard_s >= HEALTHY_AFTER_S:
                backoff.reset()
            else:
                await backoff.pause()
            await at.attach()

    async def _look(self, known: StoredRun | None) -> Run | None:
        try:
            if known is not None:
                return await self._outcomes.of_record(self.principal, known)
            return await self._outcomes.of_place(self.principal, self.entry)
        except FactoryChainError as error:
            log.warning(
                "the outcome of a run is not known yet", run=self.entry.run, reason=error.reason
            )
            return None

    # --- once more --------------------------------------------------------------------------

    async def _again(self) -> bool:
        """Begin the run's next attempt; False: there is none, or the run is to end.

        Raises:
            TakenOver: another engine looks after the run.
        """
        now_s = self._clock()
        deadline_s = self._at.lifeline.deadline_s(now_s)
        over = self.entry.attempt >= self.entry.attempts or now_s >= deadline_s
        if over or self.cancel_reason is not None:
            return False
        self._begin_waiting(now_s, deadline_s)
        beginning = detached(self._begin_next(), name=f"begin {self.entry.run} again")
        to_end = detached(self._to_end.wait(), name=f"cancel {self.entry.run}")
        either: list[asyncio.Future[Any]] = [beginning, to_end, self._at.given_up]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return beginning.result() if beginning.done() else False
        finally:
            to_end.cancel()
            beginning.cancel()
            await asyncio.wait([beginning, to_end])

    def _begin_waiting(self, now_s: float, deadline_s: float) -> None:
        """Nobody has the run. Silence counts from here, so that it does not wait for agents for ever;
        what it has waited for its user is in its deadline from now on.
        """
        lost = self._at
        lost.close()
        left_s = max(0.0, lost.limits.ask_max_s - lost.lifeline.waited_s(now_s))
        limits = replace(lost.limits, ask_max_s=left_s)
        entry = replace(lost.entry, deadline_s=deadline_s, agents_address="", agents_boot="")
        self._at = AtAgents(self.principal, entry, self._reach, limits, known=True)

    async def _begin_next(self) -> bool:
        at = self._at
        request = self._request or await self._attempts.request(self.principal, at.entry)
        if request is None:
            return False
        entry = await self._attempts.take(self.principal, at.entry, at.entry.deadline_s)
        if entry is None:
            return False
        if entry.cancel:
            at.numbered(entry)
            self._hear_of_cancel(entry)
            return False
        log.warning("a lost run is started again", run=entry.run, attempt=entry.attempt)
        self._request = request
        at.numbered(entry)
        life = await self._attempts.execute(at.context, request, entry.trace)
        if life is not None:
            at.follow(life)
            self._on_again(self)
        return True
