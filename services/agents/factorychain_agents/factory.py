"""The factory at the heart of the agents layer: an isolated instance for every run.

Invariant: an instance is made for exactly one run and attempt, from a spec that holds no credential, and
only of an agent of which everything that it needs is known to be there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from factorychain._core.execution_context import UserExecutionContext
from factorychain._instance.host import RunHost
from factorychain._instance.spec import RunSpec
from factorychain.errors import InvalidField
from factorychain_agents.executor import Executor, RunHandle
from factorychain_agents.registry import AgentRegistry
from factorychain_agents.run_models import RunModels

EVENT_MAX_BYTES = 65_536
_ASK_MAX_S = 3600.0


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What a run gets besides what its token says."""

    input_json: str
    metadata_json: str = "{}"
    context: Sequence[tuple[str, str]] = ()
    replaces: str = ""
    resumes: str = ""
    resume_json: str = ""
    """What was answered to the requests of the run that it goes on for."""


@dataclass(frozen=True, slots=True)
class InstanceLimits:
    """Bounds of an instance where the run's token names none."""

    output_max_bytes: int
    beat_every_s: float
    event_max_bytes: int = EVENT_MAX_BYTES


def report_every_s(ctx: UserExecutionContext, at_most_s: float) -> float:
    """How often a run must show that it lives: several times before the engine would give it up."""
    return min(at_most_s, ctx.limits.get("idle_s", at_most_s * 4) / 4)


class AgentInstanceFactory:
    """Makes agent instances."""

    def __init__(self, registry: AgentRegistry, executor: Executor, limits: InstanceLimits) -> None:
        self._registry = registry
        self._executor = executor
        self._limits = limits

    def check(self, ctx: UserExecutionContext, request: StartRequest) -> None:
        """Whether the run can be started.

        Raises:
            AgentNotFound: its agent is not there.
            AgentDependencyMissing: its agent misses something.
            InvalidField: the input is not what the agent takes.
        """
        self._registry.find(ctx.agent).definition.argument(request.input_json)
        try:
            metadata = orjson.loads(request.metadata_json or "{}")
        except orjson.JSONDecodeError as error:
            raise InvalidField("metadata", "is not JSON") from error
        if not isinstance(metadata, dict):
            raise InvalidField("metadata", "must be an object")

    def spec(
        self, ctx: UserExecutionContext, request: StartRequest, trace: str, models: RunModels
    ) -> RunSpec:
        """What the instance will know of its run."""
        limits = ctx.limits
        return RunSpec(
            tenant=ctx.principal.tenant,
            user=ctx.principal.user,
            thread=ctx.thread,
            run=ctx.run,
            agent=ctx.agent,
            attempt=ctx.attempt,
            input_json=request.input_json,
            metadata_json=request.metadata_json or "{}",
            context=tuple(request.context),
            replaces=request.replaces,
            resumes=request.resumes,
            resume_json=request.resume_json,
            ask_max_s=float(limits.get("ask_s", _ASK_MAX_S)),
            deadline_s=ctx.deadline_s,
            trace=trace,
            event_max_bytes=limits.get("event_max_bytes", self._limits.event_max_bytes),
            output_max_bytes=limits.get("output_max_bytes", self._limits.output_max_bytes),
            beat_every_s=report_every_s(ctx, self._limits.beat_every_s),
            gateway_url=models.url,
            gateway_key=models.key,
            credentials=tuple(models.credentials),
        )

    async def start(self, spec: RunSpec, host: RunHost) -> RunHandle:
        """Start an instance.

        Raises:
            Capacity: no more can be started here now.
        """
        return await self._executor.start_run(spec, host)
