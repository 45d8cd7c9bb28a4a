"""Agents as asyncio tasks of this process.

Invariant: a run's task starts from an empty contextvars context, so that nothing of the call that
started it, or of another user's, is there for the agent's code to find.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from opentelemetry import context as otel_context
from opentelemetry import trace as otel_trace

from factorychain._core.component import TaskSet, detached
from factorychain._core.logging import get_logger, log_context
from factorychain._core.metrics import up_down_counter
from factorychain._core.telemetry import parse_traceparent
from factorychain._core.watchdog import listen
from factorychain._instance.active import ActiveRun
from factorychain._instance.application import Startable
from factorychain._instance.host import RunHost
from factorychain._instance.runner import abandon, run_agent
from factorychain._instance.spec import Outcome, OutcomeKind, RunSpec
from factorychain._instance.sub_agents import SubAgents
from factorychain.errors import SubAgentRefused
from factorychain_agents.blocking import BlockedLoop
from factorychain_agents.executor import RunHandle
from factorychain_agents.output import captured
from factorychain_agents.registry import AgentRegistry, Registered

log = get_logger(__name__)

_tasks = up_down_counter("factorychain.agents.instances", "Agent instances", "{instance}")


class TaskExecutor:
    """Runs each instance as a task."""

    name = "task executor"

    def __init__(self, registry: AgentRegistry) -> None:
        self._registry = registry
        self._running: set[asyncio.Task[Outcome]] = set()
        self._abandoned = TaskSet(self.name)
        self._loop = BlockedLoop(lambda: bool(self._running))
        self._stop_listening: Callable[[], None] | None = None

    @property
    def healthy(self) -> bool:
        return not self._loop.degraded

    @property
    def running(self) -> int:
        return len(self._running)

    async def start(self) -> None:
        """From now on the watchdog of the loop says whose code holds it up."""
        self._stop_listening = listen(self._loop)

    async def stop(self) -> None:
        """Cancel what was abandoned; runs were ended by their owner."""
        if self._stop_listening is not None:
            self._stop_listening()
        for task in self._running:
            task.cancel()
        await self._abandoned.close(timeout_s=1.0)

    async def start_run(self, spec: RunSpec, host: RunHost) -> RunHandle:
        registered = self._registry.find(spec.agent)
        sub_agents = SubAgents(self._find, confined_to=None)
        run = ActiveRun(spec, host, asyncio.get_running_loop(), sub_agents=sub_agents)
        task = detached(_run(run, registered), name=f"run {spec.run}")
        self._running.add(task)
        _tasks.add(1)
        task.add_done_callback(self._done)
        return _TaskHandle(run, task, self._let_go)

    async def _find(self, name: str) -> Startable:
        found = self._registry.find(name)
        if found.isolation != "task":
            raise SubAgentRefused(
                name, "isolation: its runs have processes of their own, and this run is a task"
            )
        return Startable(found.definition, found.injection)

    def _let_go(self, run: ActiveRun) -> None:
        """What was made for the run is closed although its code goes on."""
        _ = self._abandoned.spawn(_released(run), run.spec.run)

    def _done(self, task: asyncio.Task[Outcome]) -> None:
        self._running.discard(task)
        _tasks.add(-1)
        if not task.cancelled() and task.exception() is not None:
            log.error("an instance broke its host", exc_info=task.exception())


class _TaskHandle:
    """One run as a task."""

    def __init__(
        self, run: ActiveRun, task: asyncio.Task[Outcome], let_go: Callable[[ActiveRun], None]
    ) -> None:
        self._run = run
        self._task = task
        self._let_go = let_go

    def cancel(self) -> None:
        self._task.cancel()

    def reject(self, reason: str, message: str) -> None:
        self._run.reject(reason, message)

    async def wait(self) -> Outcome:
        # Not awaited itself: cancelling who waits must not cancel the agent.
        await asyncio.wait({self._task})
        if self._task.cancelled():  # before its first step
            return Outcome(OutcomeKind.CANCELLED, usage=self._run.usage)
        if self._task.exception() is not None:
            return Outcome(OutcomeKind.FAILED, reason="AGENT_FAILED", usage=self._run.usage)
        return self._task.result()

    def abandon(self) -> None:
        self._run.close()
        self._let_go(self._run)
        log.warning(
            "an agent did not stop when cancelled and was abandoned",
            run=self._run.spec.run,
            agent=self._run.spec.agent,
        )


async def _released(run: ActiveRun) -> None:
    spec = run.spec
    with log_context(run=spec.run, thread=spec.thread, tenant=spec.tenant), captured(spec.run):
        await abandon(run)


async def _run(run: ActiveRun, registered: Registered) -> Outcome:
    """The task of a run; its context is its own, so nothing here has to be undone."""
    spec = run.spec
    parent = parse_traceparent(spec.trace)
    if parent is not None:
        # Spans that libraries make in the agent's code become children of the run's.
        span = otel_trace.NonRecordingSpan(parent)
        otel_context.attach(otel_trace.set_span_in_context(span))
    with log_context(run=spec.run, thread=spec.thread, tenant=spec.tenant), captured(spec.run):
        return await run_agent(run, registered.definition, registered.injection)
