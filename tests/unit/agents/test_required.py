"""An operator may require that every agent is confined."""

from __future__ import annotations

import pytest

from factorychain import Agent, RunContext
from factorychain._core.settings import AgentsSettings
from factorychain._instance.definition import define
from factorychain._sandbox import Support
from factorychain_agents.registry import AgentRegistry
from factorychain_agents.required import SandboxRequired, check_required

COMPLETE = Support(landlock_abi=7, seccomp=True)
REQUIRED = AgentsSettings(require_sandbox=True)


class Contained(Agent):
    isolation = "process"

    async def run(self, ctx: RunContext) -> None: ...


class Trusted(Agent):
    isolation = "task"

    async def run(self, ctx: RunContext) -> None: ...


def registry(*agents: type[Agent]) -> AgentRegistry:
    return AgentRegistry([define(each) for each in agents], "process")


def test_without_the_requirement_nothing_is_refused() -> None:
    check_required(AgentsSettings(), registry(Contained, Trusted), Support(0, seccomp=False))


def test_what_can_be_confined_completely_starts() -> None:
    check_required(REQUIRED, registry(Contained), COMPLETE)


def test_an_agent_that_runs_as_a_task_is_named() -> None:
    with pytest.raises(SandboxRequired, match="nothing confines: trusted; use isolation"):
        check_required(REQUIRED, registry(Contained, Trusted), COMPLETE)


def test_what_the_kernel_lacks_is_said() -> None:
    with pytest.raises(SandboxRequired, match="this kernel has\\nno landlock_scopes: agents"):
        check_required(REQUIRED, registry(Contained), Support(landlock_abi=5, seccomp=True))
