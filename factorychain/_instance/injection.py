"""What agents are made from: the providers of their module, resolved by dishka.

Invariant: what is not marked `shared` is made anew for each run and closed at its end; what is shared is
made once, at start-up. An agent is startable exactly when everything that its constructor needs, in
however many steps, can be made; else the names of what is missing are known before any run.
"""

from __future__ import annotations

import sys
import traceback
import types
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from dishka import AsyncContainer, Provider
from dishka.exception_base import DishkaError

from factorychain._instance.declared import (
    agent_provider,
    inherited_providers,
    module_providers,
    overriding,
)
from factorychain._instance.definition import AgentDefinition
from factorychain._instance.footprint import Footprint, Left
from factorychain._instance.graph import Graph, complete, named, provided
from factorychain._instance.run_scope import RunScope
from factorychain.context import RunContext
from factorychain.errors import FactoryChainError

Overrides = Mapping[type, object]

NOT_CONFIGURED = "NOT_CONFIGURED"
"""Reason of an error whose text says to the operator all that there is to say."""

_NOTHING = Left()


@dataclass(frozen=True, slots=True)
class Built:
    """Something shared, as it was made at start-up."""

    provides: str
    """Its type."""
    provider: str
    """What made it, as its author finds it."""
    left: Left = _NOTHING
    """What it needs of this process that a fork would not have."""
    failure: str = ""
    """Why it could not be made."""

    @property
    def fork_problem(self) -> str:
        """Why processes that are forked from this one cannot use it; empty if they can."""
        if not self.left:
            return ""
        return (
            f"{self.provider} makes a {self.provides} that does not survive a fork: {self.left}. "
            "Make it for each run (without `shared`), or only what is read from it here"
        )


@dataclass(frozen=True, slots=True)
class Made:
    """Something shared and how it was made, for other modules that list the same provider."""

    value: object
    built: Built


class Injection:
    """Makes the agents of one module, which share what the module's providers share."""

    def __init__(
        self,
        module: types.ModuleType | None,
        definitions: Iterable[AgentDefinition],
        overrides: Overrides | None = None,
        made: dict[Hashable, Made] | None = None,
    ) -> None:
        """`made` is what injections of one process have made by now: nothing of it is made twice."""
        self.definitions = tuple(definitions)
        self.missing: dict[str, tuple[str, ...]] = {}
        """Names of what each agent misses, by the agent's name; empty for one that can start."""
        self._module = module
        self._overrides = overrides or {}
        self.built: list[Built] = []
        """What was made here at start-up, in this order."""
        self._made = {} if made is None else made
        self._container: AsyncContainer | None = None
        self._shared: dict[object, Built] = {}
        self._shared_by: dict[str, list[Built]] = {}

    def fork_problems(self, agent: str) -> tuple[str, ...]:
        """Why the agent cannot run in a process that is forked from this one."""
        shared = self._shared_by.get(agent, ())
        return tuple(each.fork_problem for each in shared if each.fork_problem)

    async def start(self) -> None:
        """Check every agent, make what is shared. Never fails: what cannot start is in `missing`."""
        try:
            providers = [
                *inherited_providers(self._module, self.definitions),
                *module_providers(self._module),
                overriding(self._overrides.items()),
            ]
            agents = self._agents(provided(providers))
            graph = Graph([*providers, *agents.values()])
            providers.append(self._made_before(graph, agents))
            self._container, absent = complete([*providers, *agents.values()])
        except (TypeError, NameError, ValueError, DishkaError) as error:
            problem = (f"providers: {error}",)
            self.missing = {each.name: problem for each in self.definitions}
            return
        for definition in self.definitions:
            if definition.name in agents:
                needed = graph.needed(definition.cls)
                missing = [named(hint) for hint in absent if hint in needed]
                missing += await self._make_shared(graph, definition, set(absent))
                self.missing[definition.name] = tuple(missing)
        self._compile()

    async def close(self) -> None:
        """Close what is shared."""
        if self._container is not None:
            container, self._container = self._container, None
            await container.close()

    def scope(self, ctx: RunContext) -> RunScope:
        """The dependencies of one run."""
        if self._container is None:
            raise RuntimeError("the injection is not started")
        return RunScope(self._container({RunContext: ctx}))

    def _compile(self) -> None:
        """Have dishka write the code that makes each agent, which it does when it is first needed: in
        milliseconds, and in a forked process for every run again.
        """
        assert self._container is not None, "start has made it"
        registry = self._container({}).registry
        for each in self.definitions:
            if not self.missing[each.name]:
                _ = registry.get_compiled_async(each.cls)

    def _agents(self, provided: set[object]) -> dict[str, Provider]:
        """A provider of each agent whose constructor can be understood."""
        found = {}
        for each in self.definitions:
            try:
                found[each.name] = agent_provider(each, provided)
            except (TypeError, NameError, DishkaError) as error:
                self.missing[each.name] = (str(error),)
        return found

    def _made_before(self, graph: Graph, agents: Iterable[str]) -> Provider:
        """What another module's injection has made with the same provider of the same things."""
        classes = [each.cls for each in self.definitions if each.name in agents]
        shared = dict.fromkeys(hint for cls in classes for hint in graph.shared(cls))
        found = {hint: self._made.get(graph.identity(hint)) for hint in shared}
        self._shared = {hint: each.built for hint, each in found.items() if each is not None}
        return overriding((hint, each.value) for hint, each in found.items() if each is not None)

    async def _make_shared(
        self, graph: Graph, definition: AgentDefinition, absent: set[object]
    ) -> list[str]:
        """Make what an agent needs of what is shared; what is in the way, in words."""
        found: dict[object, Built] = {}
        unusable = set(absent)
        for hint in graph.shared(definition.cls):
            if unusable.isdisjoint(graph.needed(hint)):  # else that is named already
                if hint not in self._shared:
                    self._shared[hint] = await self._make_one(graph, hint)
                found[hint] = self._shared[hint]
                unusable |= {hint} if found[hint].failure else set()
        self._shared_by[definition.name] = list(found.values())
        return [each.failure for each in found.values() if each.failure]

    async def _make_one(self, graph: Graph, hint: object) -> Built:
        before = Footprint.now()
        value, failure = await self._value(hint)
        left = _NOTHING if failure else before.left_by(value)
        built = Built(named(hint), graph.provider(hint), left, failure)
        if not failure:
            self._made.setdefault(graph.identity(hint), Made(value, built))
        self.built.append(built)
        return built

    async def _value(self, hint: object) -> tuple[object, str]:
        """Something shared, or why there is none."""
        assert self._container is not None, "start has made it"
        try:
            return await self._container.get(hint), ""
        except FactoryChainError as error:
            what = "" if error.reason == NOT_CONFIGURED else f"{named(hint)}: "
            return None, f"{what}{error.message}"
        except Exception as error:  # noqa: BLE001 - an author's code: its text is for the log only
            sys.stderr.write("".join(traceback.format_exception(error)))
            why = f"making it failed ({type(error).__name__}); see the log"
            return None, f"{named(hint)}: {why}"
