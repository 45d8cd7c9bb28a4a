"""Agents that are made ready when they are first asked for, where no service has done so before.

Invariant: what was made ready is closed in the end, the last first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from factorychain._instance.application import Startable
from factorychain._instance.definition import agent_name, define
from factorychain._instance.injection import Injection, Overrides
from factorychain.agent import Agent
from factorychain.errors import AgentNotFound


class KnownAgents:
    """Agents by name."""

    def __init__(self, classes: Iterable[type[Agent]], overrides: Overrides | None = None) -> None:
        """`overrides` is what they get instead of what their modules' providers make, by type."""
        self._classes = {agent_name(each): each for each in classes}
        self._overrides = overrides
        self._ready: dict[str, Startable] = {}

    async def find(self, name: str) -> Startable:
        """An agent.

        Raises:
            AgentNotFound: there is none of this name.
            BadAgent: its class cannot be an agent.
        """
        if name not in self._ready:
            cls = self._classes.get(name)
            if cls is None:
                raise AgentNotFound(name, self._classes)
            definition = define(cls)
            injection = Injection(sys.modules.get(cls.__module__), [definition], self._overrides)
            self._ready[name] = Startable(definition, injection)
            await injection.start()
        return self._ready[name]

    async def close(self) -> None:
        """Close what they share."""
        while self._ready:
            _, last = self._ready.popitem()
            await last.injection.close()


def agents_in(module: str) -> list[type[Agent]]:
    """The classes of agents that a module has or shows."""
    found = vars(sys.modules[module]).values() if module in sys.modules else ()
    return [
        each
        for each in found
        if isinstance(each, type)
        and issubclass(each, Agent)
        and each is not Agent
        and callable(getattr(each, "run", None))
    ]
