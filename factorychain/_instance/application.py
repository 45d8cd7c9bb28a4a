"""The application scope of a process: everything that its agents share, made once.

Invariant: what one provider makes of the same things is made once, however many modules list the
provider; it is closed in the reverse order, after everything that was made of it.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from factorychain._instance.definition import AgentDefinition
from factorychain._instance.injection import Built, Injection, Made


@dataclass(frozen=True, slots=True)
class Startable:
    """One agent, and what it is made from."""

    definition: AgentDefinition
    injection: Injection

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of what it misses; empty if it can start."""
        return self.injection.missing.get(self.definition.name, ())

    @property
    def fork_problems(self) -> tuple[str, ...]:
        """Why it cannot run in a process that is forked from this one, with the providers' names."""
        return self.injection.fork_problems(self.definition.name)


class ApplicationScope:
    """What the agents of this process share. To be used on one event loop."""

    def __init__(self) -> None:
        self.agents: dict[str, Startable] = {}
        """By the agent's name."""
        self._injections: list[Injection] = []
        self._made: dict[Hashable, Made] = {}

    @property
    def built(self) -> tuple[Built, ...]:
        """Everything that was made, in this order."""
        return tuple(built for each in self._injections for built in each.built)

    @property
    def missing(self) -> Mapping[str, tuple[str, ...]]:
        """What each agent misses, by the agent's name."""
        return {name: each.missing for name, each in self.agents.items()}

    async def add(
        self, module: types.ModuleType | None, definitions: Iterable[AgentDefinition]
    ) -> Injection:
        """Make what the agents of one module share. What cannot be made is in `missing`."""
        injection = Injection(module, definitions, made=self._made)
        self._injections.append(injection)
        self.agents |= {each.name: Startable(each, injection) for each in injection.definitions}
        await injection.start()
        return injection

    async def close(self) -> None:
        """Close it; the second time there is nothing left.

        Raises:
            Exception: what finalisers raised, when all of them have run.
        """
        failures = []
        while self._injections:
            try:
                await self._injections.pop().close()
            except Exception as error:  # noqa: BLE001 - the others are closed first
                failures.append(error)
        if failures:
            raise ExceptionGroup("closing what agents share", failures)


async def build_application_scope(definitions: Iterable[AgentDefinition]) -> ApplicationScope:
    """Make once what these agents share. Never fails: what cannot start is in `missing`."""
    scope = ApplicationScope()
    by_module: dict[str, list[AgentDefinition]] = {}
    for each in definitions:
        by_module.setdefault(each.cls.__module__, []).append(each)
    for module, agents in by_module.items():
        await scope.add(sys.modules.get(module), agents)
    return scope
