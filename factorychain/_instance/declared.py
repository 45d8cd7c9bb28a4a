"""What a module declares its agents to be made from, as providers that dishka understands.

dishka knows neither defaults nor variable arguments: here a parameter with a default is filled in only
if something provides it, and is left to its default otherwise.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Iterable, Mapping
from typing import get_type_hints

from dishka import Provider, Scope

from factorychain._instance.definition import AgentDefinition
from factorychain.agent import Agent
from factorychain.context import RunContext
from factorychain.providers import is_shared

_WRITTEN = "__factorychain_written__"


def module_providers(module: types.ModuleType | None) -> list[Provider]:
    """What the module's `providers` list.

    Raises:
        TypeError: something in it is not understood.
    """
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


def inherited_providers(
    module: types.ModuleType | None, definitions: Iterable[AgentDefinition]
) -> list[Provider]:
    """What the modules of base classes list: an agent that inherits another can be made as that one is.

    Those of the nearer classes come later, so that they replace the others', and the module's own all.
    """
    bases = (base for each in definitions for base in reversed(each.cls.__mro__[1:]))
    found = dict.fromkeys(sys.modules.get(base.__module__) for base in bases)
    return [
        provider
        for each in found
        if each is not None and each is not module
        for provider in module_providers(each)
    ]


def written(provider: object) -> object:
    """What an author wrote, of a function that `module_providers` has prepared for dishka."""
    return getattr(provider, _WRITTEN, provider)


def overriding(overrides: Iterable[tuple[object, object]]) -> Provider:
    """Values to use instead of what is provided, by type."""
    provider = Provider(scope=Scope.APP)
    for hint, value in overrides:
        provider.provide(_constant(value), provides=hint)
    return provider


def _constant(value: object) -> types.FunctionType:
    def make() -> object:
        return value

    assert isinstance(make, types.FunctionType)
    return make


def agent_provider(definition: AgentDefinition, provided: set[object]) -> Provider:
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
    setattr(copy, _WRITTEN, function)
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
