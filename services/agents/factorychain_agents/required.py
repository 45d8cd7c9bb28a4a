"""What an operator may require before any agent runs: that each can be confined completely."""

from __future__ import annotations

from factorychain._core.settings import PREFIX, AgentsSettings, Misconfigured
from factorychain._sandbox import Support
from factorychain_agents.registry import AgentRegistry


class SandboxRequired(Misconfigured):
    """Some agent would not be confined; the text says which, or what is lacking."""


def check_required(settings: AgentsSettings, registry: AgentRegistry, support: Support) -> None:
    """Whether the agents may start.

    Raises:
        SandboxRequired: the operator requires what some agent or this kernel does not allow.
    """
    if not settings.require_sandbox:
        return
    variable = f"{PREFIX}REQUIRE_SANDBOX is set"
    tasks = [each.name for each in registry.isolated("task")]
    if tasks:
        raise SandboxRequired(
            f"{variable}, and these agents run as tasks, which nothing confines: {', '.join(tasks)}; "
            f"use isolation = 'process' in their classes, or {PREFIX}ISOLATION=process"
        )
    if support.missing:
        lacking = "\n".join(support.warnings)
        raise SandboxRequired(f"{variable}, and this kernel has\n{lacking}")
