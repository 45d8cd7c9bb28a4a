"""One attempt of a run, as its agents replica has it: heard, told to end, given later tokens.

Invariant: the end of a stream to agents says nothing about the run. An attempt is given up by its
`Lifeline`, or because the replica at its address does not have it: another process is there, or the one
that had it has lost it or handed it over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from factorychain._core.component import detached
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain._core.logging import get_logger
from factorychain.errors import FactoryChainError, RunNotFound
from factorychain_engine.admission.record import ActiveRun
from factorychain_engine.agents.layer import Agents, Life
from factorychain_engine.lifeline import Cancel, EndReason, LifeLimits, Lifeline, Settle
from factorychain_engine.tokens.run_tokens import RunTokens

log = get_logger(__name__)

RENEW_FOR_S: Final = 300.0
"""A run that waits for its user is given a token for so much more at once."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How an engine reaches the agents of its runs."""

    agents: Agents
    tokens: RunTokens
    clock: Callable[[], float]


class AtAgents:
    """One attempt of a run."""

    def __init__(
        self,
        principal: Principal,
        entry: ActiveRun,
        reach: Reach,
        limits: LifeLimits,
        *,
        known: bool,
        context: UserExecutionContext | None = None,
    ) -> None:
        """`known`: the attempt begins now, so that it has not waited for its user yet. `context` is the
        run's for agents, if it was made already.
        """
        self.entry = entry
        self.limits = limits
        self.address = entry.agents_address
        """The agents replica that has the run; empty until one has accepted it."""
        self.boot = entry.agents_boot
        self.lost = False
        """Whether the replica has said that it has no more to do with the run."""
        self.given_up: asyncio.Future[EndReason] = asyncio.get_running_loop().create_future()
        self.lifeline = Lifeline(entry.deadline_s, limits, reach.clock(), known=known)
        self._principal = principal
        self._agents, self._tokens, self._clock = reach.agents, reach.tokens, reach.clock
        self._context = context or reach.tokens.run(principal, entry)
        self._given_until_s = entry.deadline_s  # the deadline in the token that agents have
        self._life: Life | None = None
        self._telling: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None

    @property
    def context(self) -> UserExecutionContext:
        """The run's, with a token that is valid for a while."""
        now_s = self._clock()
        if self._context.expires_at_s - now_s < 30:
            later = replace(self.entry, deadline_s=self.lifeline.deadline_s(now_s))
            self._context = self._tokens.run(self._principal, later)
        return self._context

    def numbered(self, entry: ActiveRun) -> None:
        """The attempt has its number and place: from now on its tokens say so."""
        self.entry = entry
        self._context = self._tokens.run(self._principal, entry)

    def tick(self) -> None:
        """Look after its limits."""
        step = self.lifeline.look(self._clock())
        if isinstance(step, Settle):
            self.give_up(step.reason)
        elif isinstance(step, Cancel):
            self._tell_agents(step.reason)
        else:
            self._renew_in_time()

    def give_up(self, reason: EndReason) -> None:
        if not self.given_up.done():
            log.warning("a run is given up", run=self.entry.run, reason=reason.value)
            self.given_up.set_result(reason)

    def close(self) -> None:
        """Let go of the streams; the run itself goes on."""
        self._let_go()
        for task in (self._telling, self._renewing):
            if task is not None:
                task.cancel()

    # --- hearing of it ----------------------------------------------------------------------

    def follow(self, life: Life) -> None:
        """A replica has it, and says from now on how it is."""
        self._life = life
        self.address, self.boot = life.accepted.address, life.accepted.boot_id
        self.lifeline.heard(self._clock())
        if self.lifeline.cancel_reason is not None:
            self.tick()

    async def listen(self) -> float:
        """Until the stream ends, for whatever reason; for how many seconds it was heard: from its being
        accepted to its last sign.
        """
        began_s, heard_s = self._clock(), 0.0
        try:
            while self._life is not None:
                sign = await self._life.next_sign()
                if sign is None:
                    break
                now_s = self._clock()
                self.lifeline.heard(now_s, sign)
                heard_s = now_s - began_s
        except RunNotFound:
            self.lost = True
        except FactoryChainError as error:
            log.info("the stream of a run's life broke", run=self.entry.run, reason=error.reason)
        finally:
            self.lifeline.unheard()
            self._let_go()
        return heard_s

    async def attach(self) -> None:
        """Follow it once more where it was accepted."""
        try:
            life = await self._agents.attach(self.context, self.address, self.entry.trace)
        except RunNotFound:
            # Another process is there now, or the one that had the run has lost it.
            self.give_up(EndReason.AGENT_LOST)
            return
        except FactoryChainError as error:
            log.info("a run could not be attached to", run=self.entry.run, reason=error.reason)
            return
        if self.boot and life.accepted.boot_id != self.boot:
            life.close()
            self.give_up(EndReason.AGENT_LOST)
            return
        self.follow(life)

    def _let_go(self) -> None:
        life, self._life = self._life, None
        if life is not None:
            life.close()

    # --- ending it --------------------------------------------------------------------------

    def _tell_agents(self, reason: EndReason) -> None:
        if self.boot and (self._telling is None or self._telling.done()):
            self._telling = detached(self._tell(reason), name=f"cancel {self.entry.run}")

    async def _tell(self, reason: EndReason) -> None:
        try:
            await self._agents.cancel(self.context, self.address, reason.value, self.entry.trace)
        except FactoryChainError as error:
            # The run may have ended this moment; if not, it is told again or given up.
            log.info("a cancel was not answered", run=self.entry.run, reason=error.reason)

    # --- living longer ----------------------------------------------------------------------

    def _renew_in_time(self) -> None:
        """Once the deadline in its token has passed, a run that has waited needs a later one."""
        now_s = self._clock()
        lives_until_s = self.lifeline.deadline_s(now_s)
        if now_s < self._given_until_s or lives_until_s <= self._given_until_s or not self.boot:
            return
        if self.lifeline.waiting:
            left_s = self.limits.ask_max_s - self.lifeline.waited_s(now_s)
            lives_until_s += min(left_s, RENEW_FOR_S)
        if self._renewing is None or self._renewing.done():
            self._renewing = detached(self._renew(lives_until_s), name=f"renew {self.entry.run}")

    async def _renew(self, deadline_s: float) -> None:
        later = replace(self.entry, deadline_s=deadline_s)
        context = self._tokens.run(self._principal, later)
        try:
            await self._agents.renew(context, self.address, self.entry.trace)
        except FactoryChainError as error:
            log.warning("a run has no later token yet", run=self.entry.run, reason=error.reason)
            return
        self._context, self._given_until_s = context, deadline_s
