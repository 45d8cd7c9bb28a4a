"""What agents are made from: the providers of their module, resolved by dishka.

Invariant: what is not marked `shared` is made anew for each run and closed at its end; what is shared is
made once, at start-up. An agent is startable exactly when everything that its constructor needs, in
however many steps, can be made; else the names of what is missing are known before any run.
"""

from __future__ import annotations

import sys
import traceback
import types
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from dishka import AsyncContainer, Provider, Scope, make_async_container
from dishka.exception_base import DishkaError
from dishka.exceptions import GraphMissingFactoryError

from factorychain._instance.declared import agent_provider, module_providers, overriding
from factorychain._instance.definition import AgentDefinition
from factorychain.agent import Agent
from factorychain.context import RunContext
from factorychain.errors import FactoryChainError

Overrides = Mapping[type, object]

# More missing dependencies than this are not worth listing.
_MOST_MISSING = 32


class Injection:
    """Makes the agents of one module, which share what the module's providers share."""

    def __init__(
        self,
        module: types.ModuleType | None,
        definitions: Iterable[AgentDefinition],
        overrides: Overrides | None = None,
    ) -> None:
        self.definitions = tuple(definitions)
        self.missing: dict[str, tuple[str, ...]] = {}
        """Names of what each agent misses, by the agent's name; empty for one that can start."""
        self._module = module
        self._overrides = overrides or {}
        self._container: AsyncContainer | None = None

    async def start(self) -> None:
        """Check every agent, make what is shared. Never fails: what cannot start is in `missing`."""
        try:
            providers = [*module_providers(self._module), overriding(self._overrides)]
            agents = self._agents(_provided(providers))
            self._container, absent = _complete([*providers, *agents.values()])
        except (TypeError, NameError, ValueError, DishkaError) as error:
            problem = (f"providers: {error}",)
            self.missing = {each.name: problem for each in self.definitions}
            return
        graph = _Graph([*providers, *agents.values()])
        failed: dict[object, str] = {}
        for definition in self.definitions:
            if definition.name in agents:
                needed = graph.needed(definition.cls)
                missing = [_named(hint) for hint in absent if hint in needed]
                missing += await self._make_shared(graph.shared(needed), failed, set(absent))
                self.missing[definition.name] = tuple(missing)

    async def close(self) -> None:
        """Close what is shared."""
        if self._container is not None:
            container, self._container = self._container, None
            await container.close()

    @asynccontextmanager
    async def instance(self, definition: AgentDefinition, ctx: RunContext) -> AsyncIterator[Agent]:
        """The agent of one run, with everything that was made for it closed at the end."""
        if self._container is None:
            raise RuntimeError("the injection is not started")
        async with self._container({RunContext: ctx}) as scope:
            yield await scope.get(definition.cls)

    def _agents(self, provided: set[object]) -> dict[str, Provider]:
        """A provider of each agent whose constructor can be understood."""
        found = {}
        for each in self.definitions:
            try:
                found[each.name] = agent_provider(each, provided)
            except (TypeError, NameError, DishkaError) as error:
                self.missing[each.name] = (str(error),)
        return found

    async def _make_shared(
        self, hints: Iterable[object], failed: dict[object, str], absent: set[object]
    ) -> list[str]:
        """Make what an agent needs of what is shared; what is in the way, in words."""
        found = []
        for hint in hints:
            if hint not in absent and hint not in failed:
                failed[hint] = await self._make_one(hint)
            if failed.get(hint):
                found.append(failed[hint])
        return found

    async def _make_one(self, hint: object) -> str:
        assert self._container is not None, "start has made it"
        try:
            await self._container.get(hint)
        except _Absent:
            return ""  # it is listed by its own name
        except FactoryChainError as error:
            return f"{_named(hint)}: {error.message}"
        except Exception as error:  # noqa: BLE001 - an author's code: its text is for the log only
            sys.stderr.write("".join(traceback.format_exception(error)))
            return f"{_named(hint)}: making it failed ({type(error).__name__}); see the log"
        return ""


class _Absent(Exception):
    """Something was asked for that nothing provides."""


class _Graph:
    """What needs what."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        self._needs: dict[object, list[object]] = {}
        self._shared: set[object] = set()
        for provider in providers:
            for factory in provider.factories:
                hint = factory.provides.type_hint
                keys = [*factory.dependencies, *factory.kw_dependencies.values()]
                self._needs[hint] = [each.type_hint for each in keys]
                if factory.scope is Scope.APP:
                    self._shared.add(hint)
            for alias in provider.aliases:
                self._needs[alias.provides.type_hint] = [alias.source.type_hint]

    def needed(self, hint: object) -> list[object]:
        """Everything that has to be made for something, itself included, what is needed first last."""
        found: dict[object, None] = {}
        wanted = [hint]
        while wanted:
            each = wanted.pop()
            if each not in found:
                found[each] = None
                wanted += self._needs.get(each, [])
        return list(found)

    def shared(self, hints: Iterable[object]) -> list[object]:
        return [hint for hint in hints if hint in self._shared]


def _complete(providers: list[Provider]) -> tuple[AsyncContainer, list[object]]:
    """A container in which stand-ins fill what is absent, and what that is.

    dishka refuses a whole graph for one gap; here an agent that has all it needs can start beside one
    that has not.
    """
    absent: list[object] = []
    stand_ins = Provider(scope=Scope.APP)
    context = Provider(scope=Scope.REQUEST)
    context.from_context(RunContext)
    there = _provided(providers)
    while True:
        try:
            return make_async_container(context, *providers, stand_ins), absent
        except GraphMissingFactoryError as error:
            hint = error.requested.type_hint
            if hint in there or hint in absent or len(absent) >= _MOST_MISSING:
                raise TypeError(
                    f"something shared needs {_named(hint)}, which is made for each run"
                    if hint in there
                    else str(error)
                ) from error
            absent.append(hint)
            stand_ins.provide(_absent(hint), provides=hint)


def _absent(hint: object) -> types.FunctionType:
    def make() -> object:
        raise _Absent(_named(hint))

    assert isinstance(make, types.FunctionType)
    return make


def _provided(providers: Iterable[Provider]) -> set[object]:
    found: set[object] = {RunContext}
    for provider in providers:
        found.update(each.provides.type_hint for each in provider.factories)
        found.update(each.provides.type_hint for each in provider.aliases)
    return found


def _named(hint: object) -> str:
    if isinstance(hint, type):
        return (
            hint.__qualname__
            if hint.__module__ == "builtins"
            else f"{hint.__module__}.{hint.__qualname__}"
        )
    return str(hint)
