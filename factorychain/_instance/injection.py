"""What agents are made from: the providers of their module, resolved by dishka.

Invariant: what is not marked `shared` is made anew for each run and closed at its end; what is shared is
made once, at start-up. An agent is startable exactly when everything that its constructor needs, in
however many steps, can be made; else the names of what is missing are known before any run.
"""

from __future__ import annotations

import inspect
import sys
import traceback
import types
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import get_type_hints

from dishka import AsyncContainer, Provider, Scope, make_async_container
from dishka.exception_base import DishkaError
from dishka.exceptions import GraphMissingFactoryError

from factorychain._instance.definition import AgentDefinition
from factorychain.agent import Agent
from factorychain.context import RunContext
from factorychain.errors import FactoryChainError
from factorychain.providers import is_shared

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
        self._overrides = overrides or {}
        self._problem = ""
        try:
            self._providers = [*_providers(module), _overriding(self._overrides)]
        except (TypeError, NameError, ValueError, DishkaError) as error:
            self._problem = f"providers: {error}"
            self._providers = []
        self._container: AsyncContainer | None = None

    async def start(self) -> None:
        """Check every agent, make what is shared. Never fails: what cannot start is in `missing`."""
        for each in self.definitions:
            self.missing[each.name] = self._missing_of(each)
        ready = [each for each in self.definitions if not self.missing[each.name]]
        self._container = self._make([_agent_provider(each, self._provided()) for each in ready])
        failed: dict[object, str] = {}
        for each in ready:
            needed = self._shared_for(each)
            for hint in needed:
                await self._make_shared(hint, failed)
            self.missing[each.name] = tuple(failed[hint] for hint in needed if failed[hint])

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

    def _missing_of(self, definition: AgentDefinition) -> tuple[str, ...]:
        if self._problem:
            return (self._problem,)
        try:
            agent = _agent_provider(definition, self._provided())
        except (TypeError, NameError, DishkaError) as error:
            return (str(error),)
        missing: list[str] = []
        stand_ins = Provider(scope=Scope.APP)
        while len(missing) < _MOST_MISSING:
            try:
                self._make([agent, stand_ins])
            except GraphMissingFactoryError as error:
                hint = error.requested.type_hint
                missing.append(_named(hint))
                stand_ins.provide(lambda: None, provides=hint)
            except DishkaError as error:
                return (*missing, str(error))
            else:
                break
        return tuple(missing)

    def _make(self, more: list[Provider]) -> AsyncContainer:
        context = Provider(scope=Scope.REQUEST)
        context.from_context(RunContext)
        return make_async_container(context, *self._providers, *more)

    def _provided(self) -> set[object]:
        found: set[object] = {RunContext}
        for provider in self._providers:
            found.update(each.provides.type_hint for each in provider.factories)
            found.update(each.provides.type_hint for each in provider.aliases)
        return found

    def _shared_for(self, definition: AgentDefinition) -> list[object]:
        """What this agent needs, directly or not, that is made once."""
        agent = _agent_provider(definition, self._provided())
        factories = {
            each.provides.type_hint: each
            for provider in [*self._providers, agent]
            for each in provider.factories
        }
        found: dict[object, None] = {}
        seen: set[object] = set()
        wanted: list[object] = [definition.cls]
        while wanted:
            hint = wanted.pop()
            factory = factories.get(hint)
            if factory is None or hint in seen:
                continue
            seen.add(hint)
            if factory.scope is Scope.APP:
                found[hint] = None
            keys = [*factory.dependencies, *factory.kw_dependencies.values()]
            wanted.extend(each.type_hint for each in keys)
        return list(found)

    async def _make_shared(self, hint: object, failed: dict[object, str]) -> None:
        if hint in failed or self._container is None:
            return
        failed[hint] = ""
        try:
            await self._container.get(hint)
        except FactoryChainError as error:
            failed[hint] = f"{_named(hint)}: {error.message}"
        except Exception as error:  # noqa: BLE001 - an author's code: its text is for the log only
            traceback.print_exception(error, file=sys.stderr)
            failed[hint] = f"{_named(hint)}: making it failed ({type(error).__name__}); see the log"


def _providers(module: types.ModuleType | None) -> list[Provider]:
    listed: object = getattr(module, "providers", ())
    if not isinstance(listed, list | tuple):
        raise TypeError("`providers` must be a list of functions or dishka providers")
    functions = Provider(scope=Scope.REQUEST)
    found = [functions]
    plain = []
    for each in listed:
        if isinstance(each, Provider):
            found.append(each)
        elif inspect.isfunction(each):
            plain.append(each)
        else:
            raise TypeError(f"{each!r} is neither a function nor a dishka provider")
    provided = {hint for each in plain for hint in [get_type_hints(each).get("return")]}
    provided |= {each.provides.type_hint for one in found for each in one.factories} | {RunContext}
    for each in plain:
        scope = Scope.APP if is_shared(each) else Scope.REQUEST
        functions.provide(_with_defaults(each, provided), scope=scope)
    return found


def _overriding(overrides: Overrides) -> Provider:
    provider = Provider(scope=Scope.APP)
    for hint, value in overrides.items():
        provider.provide(_constant(value), provides=hint)
    return provider


def _constant(value: object) -> types.FunctionType:
    def make() -> object:
        return value

    assert isinstance(make, types.FunctionType)
    return make


def _agent_provider(definition: AgentDefinition, provided: set[object]) -> Provider:
    """A provider of the agent itself: its constructor's annotations are what it needs."""
    cls = definition.cls

    def make(**needed: object) -> Agent:
        return cls(**needed)

    init = cls.__init__
    parameters: list[inspect.Parameter] = []
    hints: dict[str, object] = {}
    if init is not object.__init__:
        hints = get_type_hints(init)
        parameters = list(inspect.signature(init).parameters.values())[1:]
    _give_signature(make, parameters, hints, provided, f"{cls.__qualname__}.__init__")
    provider = Provider(scope=Scope.REQUEST)
    provider.provide(make, provides=cls)
    return provider


def _with_defaults(function: types.FunctionType, provided: set[object]) -> types.FunctionType:
    """The function, without the parameters that have a default and no provider."""
    hints = get_type_hints(function)
    parameters = list(inspect.signature(function).parameters.values())
    if "return" not in hints:
        raise TypeError(f"provider {function.__name__} needs a return annotation: what it makes")
    copy = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__qualname__ = function.__qualname__
    copy.__module__ = function.__module__
    _give_signature(copy, parameters, hints, provided, function.__qualname__)
    copy.__annotations__["return"] = hints["return"]
    return copy


def _give_signature(
    function: object,
    parameters: list[inspect.Parameter],
    hints: Mapping[str, object],
    provided: set[object],
    where: str,
) -> None:
    """Tell dishka what to fill in, by name: it knows no defaults and no variable arguments."""
    assert isinstance(function, types.FunctionType)
    kept = []
    for each in parameters:
        hint = hints.get(each.name)
        variable = each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        if variable or (each.default is not each.empty and hint not in provided):
            continue
        if hint is None:
            raise TypeError(f"{where}: annotate its parameter {each.name!r}")
        kept.append(each.replace(kind=each.KEYWORD_ONLY, annotation=hint, default=each.empty))
    function.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
    function.__annotations__ = {each.name: each.annotation for each in kept}


def _named(hint: object) -> str:
    if isinstance(hint, type):
        return (
            hint.__qualname__
            if hint.__module__ == "builtins"
            else f"{hint.__module__}.{hint.__qualname__}"
        )
    return str(hint)
