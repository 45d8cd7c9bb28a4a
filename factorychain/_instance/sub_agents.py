"""Agents that are run inside of a run, by its agent's code: `ctx.run`.

Invariant: a sub-agent is a part of its run: it has the run's identity, limits, deadline and usage, its
end is waited for, and nothing of it outlives the run. Users see it as a call of a tool that has its name;
what it says meanwhile has that name in its path. It may do nothing that the run it is in may not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

import orjson
from pydantic import BaseModel

from factorychain._instance.active import ActiveRun
from factorychain._instance.application import Startable
from factorychain._instance.definition import agent_name
from factorychain._instance.external_calls import tool_call
from factorychain._instance.needs import Needs, wider
from factorychain._instance.runner import run_inside
from factorychain._instance.values import NotJson, dumps
from factorychain.agent import Agent
from factorychain.errors import AgentDependencyMissing, AgentNotFound, SubAgentRefused
from factorychain.input import Input, encode_input

DEPTH_MAX: Final = 8
_KEYS: Final = frozenset({"text", "content", "data"})

Find: TypeAlias = Callable[[str], Awaitable[Startable]]
"""An agent by its name; raises AgentNotFound, or SubAgentRefused if it cannot be run here."""


class SubAgents:
    """The agents that can be run inside of the runs of one agent."""

    def __init__(self, find: Find, confined_to: Needs | None) -> None:
        """`confined_to` is what the run's process may do; None: its agents are not confined."""
        self._find = find
        self._confined_to = confined_to

    async def run(
        self, parent: ActiveRun, agent: str | type[object], given: object, name: str = ""
    ) -> object:
        """Run an agent to its end; what it returns is returned, what it raises is raised.

        Args:
            parent: the agent that runs it.
            agent: its name or its class.
            given: its input: text, an `Input`, the JSON of one, or what its own model describes.
            name: what it is called in `path`; by default its name.

        Raises:
            AgentNotFound: there is none of this name; `names` are those that there are.
            AgentDependencyMissing: it misses something.
            SubAgentRefused: it cannot be run inside of this run; the text says why.
            InvalidField: the input is not what it takes.
            TypeError: it is neither a name nor the class of an agent, or the input has no JSON form.
        """
        found = await self._startable(parent, agent)
        definition = found.definition
        try:
            input_json = input_json_of(given)
        except NotJson as error:
            raise TypeError(f"ctx.run: the input has no JSON form: {error}") from error
        definition.argument(input_json)
        shown = name or definition.name
        async with tool_call(parent, shown, orjson.loads(input_json)) as call:
            spec = replace(
                parent.spec, agent=definition.name, input_json=input_json, trace=call.trace
            )
            child = parent.inside(spec, shown)
            output = await run_inside(child, definition, found.injection)
            await call.end(output)
        return output

    async def _startable(self, parent: ActiveRun, agent: str | type[object]) -> Startable:
        name = _name(agent)
        if parent.depth + 1 > DEPTH_MAX:
            raise SubAgentRefused(name, f"agents run one another more than {DEPTH_MAX} deep")
        found = await self._find(name)
        if isinstance(agent, type) and found.definition.cls is not agent:
            raise AgentNotFound(f"{agent.__module__}.{agent.__qualname__}", [name])
        if found.missing:
            raise AgentDependencyMissing(found.missing)
        if self._confined_to is not None:
            problem = wider(found.definition.needs, self._confined_to)
            if problem:
                raise SubAgentRefused(name, problem)
        return found


def _name(agent: object) -> str:
    if isinstance(agent, str):
        return agent
    if isinstance(agent, type) and issubclass(agent, Agent):
        return agent_name(agent)
    raise TypeError(f"ctx.run: {agent!r} is neither the name nor the class of an agent")


def input_json_of(given: object) -> str:
    """The JSON of an input, from what a caller has.

    Raises:
        NotJson: there is no JSON of it.
    """
    if isinstance(given, str):
        return dumps({"text": given})
    if isinstance(given, Input):
        return encode_input(given)
    if isinstance(given, BaseModel):
        return dumps({"data": given.model_dump(mode="json")})
    if isinstance(given, Mapping) and not _KEYS.isdisjoint(given):
        return dumps(dict(given))
    return dumps({"data": given})
