"""One run under supervision: from the place that it holds to its ending in the log.

Invariant: the end of a stream to agents never ends a run. Supervision goes on until an ending is in
the log: the agent's own, or, when a `Lifeline` has given the run up, the one that `Settler` writes. A run
that was given up because its agents are lost may begin another attempt instead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from factorychain._core.component import detached
from factorychain._core.crash_points import crash_point
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain._core.logging import get_logger
from factorychain.agents.v1.agents_pb2 import ExecuteRequest
from factorychain.errors import FactoryChainError, RunNotFound
from factorychain.types.v1.run_pb2 import Run
from factorychain_engine.admission import ActiveRun
from factorychain_engine.agents_layer import Agents, Life, NotAccepted
from factorychain_engine.attempts import Attempts
from factorychain_engine.lifeline import (
    Cancel,
    EndReason,
    LifeLimits,
    Lifeline,
    Settle,
)
from factorychain_engine.outcomes import Outcomes
from factorychain_engine.retry import Backoff
from factorychain_engine.run_tokens import RunTokens
from factorychain_engine.settling import Settler
from factorychain_engine.stored_run import StoredRun

log = get_logger(__name__)


RENEW_FOR_S: Final = 300.0
"""A run that waits for its user is given a token for so much more at once."""


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
        self.entry = entry
        self.ended: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        # Often nobody waits for it.
        self.ended.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._agents = agents
        self._tokens = tokens
        self._outcomes = outcomes
        self._settler = settler
        self._attempts = attempts
        self._on_again = on_again
        self._request: ExecuteRequest | None = None  # kept only for another attempt
        self._clock = clock
        self._limits = limits
        # One that was begun elsewhere may have waited for its user.
        self._lifeline = Lifeline(entry.deadline_s, limits, clock(), known=context is not None)
        self._given_until_s = entry.deadline_s  # the deadline in the token that agents have
        self._renewing: asyncio.Task[None] | None = None
        self._context = context or tokens.run(principal, entry)
        self._address = entry.agents_address
        self._boot = entry.agents_boot
        self._life: Life | None = None
        self._lost = False
        self._given_up: asyncio.Future[EndReason] = asyncio.get_running_loop().create_future()
        self._to_end = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None

    @property
    def agents_address(self) -> str:
        """The agents replica that has the run; empty until one has accepted it."""
        return self._address

    @property
    def agents_boot(self) -> str:
        return self._boot

    @property
    def cancel_reason(self) -> EndReason | None:
        """Why the run is to end; None: it is not."""
        return self._lifeline.cancel_reason

    @property
    def context(self) -> UserExecutionContext:
        """The run's, with a token that is valid for a while."""
        now_s = self._clock()
        if self._context.expires_at_s - now_s < 30:
            later = replace(self.entry, deadline_s=self._lifeline.deadline_s(now_s))
            self._context = self._tokens.run(self.principal, later)
        return self._context

    # --- from outside -----------------------------------------------------------------------

    def cancel(self, reason: EndReason) -> None:
        """Have the run ended; `ended` is set when it has."""
        self._lifeline.cancel(reason)
        self.tick()

    def tick(self) -> None:
        """Look after the run's limits; called by the clean-up loop."""
        step = self._lifeline.look(self._clock())
        if self._lifeline.cancel_reason is not None:
            self._to_end.set()
        if isinstance(step, Settle):
            self._give_up(step.reason)
        elif isinstance(step, Cancel):
            self._tell_agents(step.reason)
        else:
            self._renew_in_time()

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
            life = await self._agents.execute(self._context, request, self.entry.trace)
        except NotAccepted:
            raise
        except FactoryChainError as error:
            log.warning(
                "the agents did not answer a start", run=self.entry.run, reason=error.reason
            )
            return False
        crash_point("engine.execute.accepted")
        self._follow(life)
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
                reason = self._given_up.result()
                if reason is not EndReason.AGENT_LOST or not await self._again():
                    reason = self._lifeline.cancel_reason or reason
                    return await self._settler.settle(self.principal, self.entry, reason)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the streams; the run itself goes on."""
        self._let_go()
        if self._telling is not None:
            self._telling.cancel()
        if self._renewing is not None:
            self._renewing.cancel()

    async def _followed_or_given_up(self, known: StoredRun | None) -> Run | None:
        following = detached(self._followed(known), name=f"follow {self.entry.run}")
        either: list[asyncio.Future[Any]] = [following, self._given_up]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return following.result() if following.done() else None
        finally:
            following.cancel()
            await asyncio.wait([following])

    async def _followed(self, known: StoredRun | None) -> Run | None:
        """The run as it ended; None when it was given up."""
        backoff = Backoff()
        while True:
            healthy = await self._listen()
            ended = await self._look(known)
            if ended is not None or self._given_up.done():
                return ended
            if self._lost:
                self._give_up(EndReason.AGENT_LOST)
                return None
            if healthy:
                backoff.reset()
            else:
                await backoff.pause()
            await self._attach()

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

    async def _listen(self) -> bool:
        """Until the stream ends, for whatever reason; whether it has said anything."""
        healthy = False
        try:
            while self._life is not None:
                sign = await self._life.next_sign()
                if sign is None:
                    break
                self._lifeline.heard(self._clock(), sign)
                healthy = True
        except RunNotFound:
            self._lost = True  # the replica is there, and has no more to do with the run
        except FactoryChainError as error:
            log.info("the stream of a run's life broke", run=self.entry.run, reason=error.reason)
        finally:
            self._lifeline.unheard()
            self._let_go()
        return healthy

    def _let_go(self) -> None:
        life, self._life = self._life, None
        if life is not None:
            life.close()

    async def _attach(self) -> None:
        try:
            life = await self._agents.attach(self.context, self._address, self.entry.trace)
        except RunNotFound:
            # Another process is there now, or the one that had the run has lost it.
            self._give_up(EndReason.AGENT_LOST)
            return
        except FactoryChainError as error:
            log.info("a run could not be attached to", run=self.entry.run, reason=error.reason)
            return
        if self._boot and life.accepted.boot_id != self._boot:
            life.close()
            self._give_up(EndReason.AGENT_LOST)
            return
        self._follow(life)

    def _follow(self, life: Life) -> None:
        self._life = life
        self._address, self._boot = life.accepted.address, life.accepted.boot_id
        self._lifeline.heard(self._clock())
        if self._lifeline.cancel_reason is not None:
            self.tick()

    # --- once more --------------------------------------------------------------------------

    async def _again(self) -> bool:
        """Begin the run's next attempt; False: there is none, or the run is to end.

        Raises:
            TakenOver: another engine looks after the run.
        """
        now_s = self._clock()
        deadline_s = self._lifeline.deadline_s(now_s)
        over = self.entry.attempt >= self.entry.attempts or now_s >= deadline_s
        if over or self._lifeline.cancel_reason is not None:
            return False
        self._begin_waiting(now_s, deadline_s)
        beginning = detached(self._begin_next(deadline_s), name=f"begin {self.entry.run} again")
        to_end = detached(self._to_end.wait(), name=f"cancel {self.entry.run}")
        either: list[asyncio.Future[Any]] = [beginning, to_end, self._given_up]
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
        left_s = max(0.0, self._limits.ask_max_s - self._lifeline.waited_s(now_s))
        self._limits = replace(self._limits, ask_max_s=left_s)
        self._lifeline = Lifeline(deadline_s, self._limits, now_s)
        self._given_until_s = deadline_s
        self._given_up = asyncio.get_running_loop().create_future()
        self._address = self._boot = ""
        self._lost = False

    async def _begin_next(self, deadline_s: float) -> bool:
        request = self._request or await self._attempts.request(self.principal, self.entry)
        if request is None:
            return False
        entry = await self._attempts.take(self.principal, self.entry, deadline_s)
        if entry is None:
            return False
        log.warning("a lost run is started again", run=entry.run, attempt=entry.attempt)
        self.entry, self._request = entry, request
        self._context = self._tokens.run(self.principal, entry)
        life = await self._attempts.execute(self._context, request, entry.trace)
        if life is not None:
            self._follow(life)
            self._on_again(self)
        return True

    # --- ending it --------------------------------------------------------------------------

    def _give_up(self, reason: EndReason) -> None:
        if not self._given_up.done():
            log.warning("a run is given up", run=self.entry.run, reason=reason.value)
            self._given_up.set_result(reason)

    def _tell_agents(self, reason: EndReason) -> None:
        if self._boot and (self._telling is None or self._telling.done()):
            self._telling = detached(self._tell(reason), name=f"cancel {self.entry.run}")

    async def _tell(self, reason: EndReason) -> None:
        try:
            await self._agents.cancel(self.context, self._address, reason.value, self.entry.trace)
        except FactoryChainError as error:
            # The run may have ended this moment; if not, it is told again or given up.
            log.info("a cancel was not answered", run=self.entry.run, reason=error.reason)

    # --- living longer ----------------------------------------------------------------------

    def _renew_in_time(self) -> None:
        """Once the deadline in its token has passed, a run that has waited needs a later one."""
        now_s = self._clock()
        lives_until_s = self._lifeline.deadline_s(now_s)
        if now_s < self._given_until_s or lives_until_s <= self._given_until_s or not self._boot:
            return
        if self._lifeline.waiting:
            left_s = self._limits.ask_max_s - self._lifeline.waited_s(now_s)
            lives_until_s += min(left_s, RENEW_FOR_S)
        if self._renewing is None or self._renewing.done():
            self._renewing = detached(self._renew(lives_until_s), name=f"renew {self.entry.run}")

    async def _renew(self, deadline_s: float) -> None:
        later = replace(self.entry, deadline_s=deadline_s)
        context = self._tokens.run(self.principal, later)
        try:
            await self._agents.renew(context, self._address, self.entry.trace)
        except FactoryChainError as error:
            log.warning("a run has no later token yet", run=self.entry.run, reason=error.reason)
            return
        self._context, self._given_until_s = context, deadline_s
