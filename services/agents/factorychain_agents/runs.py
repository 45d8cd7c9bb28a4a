"""The runs that this process has accepted.

Invariants: a run and attempt is accepted once, also after it is over; and when a run is finished nothing of
it is left here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from factorychain._core import genai
from factorychain._core.component import TaskSet
from factorychain._core.crash_points import crash_point
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain._core.logging import log_context
from factorychain._core.metrics import up_down_counter
from factorychain._core.telemetry import span
from factorychain.errors import Capacity, ChainDegraded, RunExists, RunNotFound
from factorychain_agents.accepted import AcceptedRuns
from factorychain_agents.factory import AgentInstanceFactory, StartRequest
from factorychain_agents.host import Conversation, RunLink
from factorychain_agents.live_run import LiveRun
from factorychain_agents.room import Room
from factorychain_agents.run_models import Gateway, NoGateway

_live = up_down_counter("factorychain.agents.runs", "Runs that this process has", "{run}")


class Rejections(Protocol):
    """Hears of an event of the run that the emitter rejected."""

    def __call__(self, run_seq: int, reason: str, message: str) -> None: ...


class Links(Protocol):
    """Opens runs on the link to the emitter."""

    async def ready(self) -> bool:
        """Whether the emitter can be reached, or could be within a moment."""
        ...

    async def open(
        self,
        ctx: UserExecutionContext,
        trace: str,
        rejected: Rejections,
        refused: Callable[[], None],
    ) -> RunLink: ...


class Runs:
    """A component: the runs that are alive, and those that were."""

    name = "runs"

    def __init__(
        self,
        factory: AgentInstanceFactory,
        links: Links,
        conversation: Callable[[UserExecutionContext, str, Callable[[], None]], Conversation],
        *,
        max_runs: int,
        cancel_grace_s: float,
        outage_max_s: float,
        gateway: Gateway | None = None,
    ) -> None:
        self._factory = factory
        self._gateway = gateway or NoGateway()
        self._links = links
        self._conversation = conversation
        self.room = Room(max_runs, time.monotonic)
        self._cancel_grace_s = cancel_grace_s
        self._outage_max_s = outage_max_s
        self._accepted = AcceptedRuns()
        self._live: dict[tuple[Principal, str], LiveRun] = {}
        self._tasks = TaskSet("runs")
        self._draining = False

    def __len__(self) -> int:
        return len(self._live)

    @property
    def healthy(self) -> bool:
        return True

    async def start(self) -> None:
        """Runs come by `accept`."""

    @property
    def draining(self) -> bool:
        return self._draining

    def drain(self) -> None:
        """Accept no more."""
        self._draining = True

    async def stop(self) -> None:
        """Stop what is left: a run that may begin again goes to another replica, the ending of any other
        says that its agents are lost.
        """
        self.drain()
        for run in list(self._live.values()):
            run.lose()
        left = [run.finished.wait() for run in self._live.values()]
        try:
            await asyncio.gather(*left)
        finally:
            await self._tasks.close(timeout_s=1.0)

    async def accept(
        self, ctx: UserExecutionContext, request: StartRequest, parent: str
    ) -> LiveRun:
        """Start a run; returns when `agent_started` is on its way.

        Raises:
            AgentNotFound: the token's agent is not there.
            AgentDependencyMissing: it misses something.
            InvalidField: the input is not what it takes.
            RunExists: this run and attempt was accepted before.
            Capacity: this process is full.
            ChainDegraded: the emitter is away, or this process is stopping.
        """
        self._factory.check(ctx, request)
        if self._draining:
            raise ChainDegraded("agents")
        if not await self._links.ready():
            raise ChainDegraded("emitter")
        if self.room.is_full:
            raise Capacity(retry_after_s=self.room.free_in_s())
        crash_point("agents.run.accepting")
        # From here to the entry in `_live` nothing is awaited: one of two equal calls gets through.
        if not self._accepted.add(ctx.run, ctx.attempt, ctx.expires_at_s, time.time()):
            raise RunExists
        name, attributes = genai.invoke_agent(
            ctx.agent, thread=ctx.thread, run=ctx.run, attempt=ctx.attempt
        )
        running = span(name, parent=parent, attributes=attributes)
        models = self._gateway.open(ctx, running.traceparent)
        spec = self._factory.spec(ctx, request, running.traceparent, models)
        run = LiveRun(ctx, spec, running, self._cancel_grace_s, models, self._outage_max_s)
        key = (ctx.principal, ctx.run)
        earlier = self._live.get(key)
        self._live[key] = run
        _live.add(1)
        self.room.came()
        if earlier is not None:
            earlier.refused()
        link = await self._links.open(ctx, running.traceparent, run.rejected, run.refused)
        run.begin(link, self._conversation(ctx, running.traceparent, run.refused))
        run.task = self._tasks.spawn(self._run(key, run, link), ctx.run)
        crash_point("agents.run.accepted")
        await asyncio.sleep(0)  # the link's turn: the user's first event goes before our answer
        return run

    def find(self, ctx: UserExecutionContext) -> LiveRun:
        """The token's run and attempt, if this process has it.

        Raises:
            RunNotFound: it has not, or not any more.
        """
        run = self._live.get((ctx.principal, ctx.run))
        if run is None or run.ctx.attempt != ctx.attempt:
            raise RunNotFound
        return run

    def renew(self, ctx: UserExecutionContext) -> None:
        """Give the token's run this token.

        Raises:
            RunNotFound: this process has it not, or not any more.
        """
        run = self.find(ctx)
        self._accepted.keep(ctx.run, ctx.attempt, ctx.expires_at_s)
        run.renew(ctx)

    async def _run(self, key: tuple[Principal, str], run: LiveRun, link: RunLink) -> None:
        try:
            await asyncio.sleep(0)  # `agent_started` and the answer to the engine go first
            with log_context(run=run.spec.run, thread=run.spec.thread):
                await run.live(self._factory, link)
        finally:
            _live.add(-1)
            self.room.left()
            run.finish()
            if self._live.get(key) is run:
                del self._live[key]
