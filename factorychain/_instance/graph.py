"""What needs what, of the providers of one module.

dishka refuses a whole graph for one gap. Here stand-ins fill what is absent, so that an agent that has
all it needs can start beside one that has not, and what is missing can be named.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Hashable, Iterable

from dishka import AsyncContainer, Provider, Scope, make_async_container
from dishka.exceptions import GraphMissingFactoryError

from factorychain._instance.declared import written
from factorychain.context import RunContext

# More missing dependencies than this are not worth listing.
_MOST_MISSING = 32


class _Absent(Exception):
    """Something was asked for that nothing provides."""


class Graph:
    """What needs what."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        self._needs: dict[object, list[object]] = {}
        self._shared: dict[object, object] = {}
        for provider in providers:
            for factory in provider.factories:
                hint = factory.provides.type_hint
                keys = [*factory.dependencies, *factory.kw_dependencies.values()]
                self._needs[hint] = [each.type_hint for each in keys]
                self._shared.pop(hint, None)  # a later provider of the same thing replaces it
                if factory.scope is Scope.APP:
                    self._shared[hint] = written(factory.source)
            for alias in provider.aliases:
                self._needs[alias.provides.type_hint] = [alias.source.type_hint]

    def needed(self, hint: object) -> list[object]:
        """Everything that has to be made for something, itself included and last."""
        found: dict[object, None] = {}
        begun: set[object] = set()
        wanted = [hint]
        while wanted:
            each = wanted[-1]
            needs = (
                [] if each in begun else [it for it in self._needs.get(each, []) if it not in begun]
            )
            begun.add(each)
            wanted += needs
            if not needs:
                found[wanted.pop()] = None
        return list(found)

    def shared(self, hint: object) -> list[object]:
        """What is shared of what something needs, in the order in which it can be made."""
        return [each for each in self.needed(hint) if each in self._shared]

    def provider(self, hint: object) -> str:
        """The provider of something shared, as people find it: module and name."""
        found = self._shared[hint]
        found = found if inspect.isroutine(found) or isinstance(found, type) else type(found)
        return f"{found.__module__}.{found.__qualname__}".replace(".<locals>", "")

    def identity(self, hint: object) -> Hashable:
        """Equal for two shared things that one provider makes of the same things."""
        return tuple((each, _identity(self._shared.get(each))) for each in self.needed(hint))


def _identity(provider: object) -> Hashable:
    if inspect.ismethod(provider):
        return id(provider.__self__), id(provider.__func__)
    return id(provider)


def complete(providers: list[Provider]) -> tuple[AsyncContainer, list[object]]:
    """A container in which stand-ins fill what is absent, and what that is.

    Raises:
        TypeError: something shared needs what is made for each run, or the gaps have no end.
        DishkaError: the providers do not fit together in another way.
    """
    absent: list[object] = []
    stand_ins = Provider(scope=Scope.APP)
    context = Provider(scope=Scope.REQUEST)
    context.from_context(RunContext)
    there = provided(providers)
    while True:
        try:
            return make_async_container(context, *providers, stand_ins), absent
        except GraphMissingFactoryError as error:
            hint = error.requested.type_hint
            if hint in there or hint in absent or len(absent) >= _MOST_MISSING:
                raise TypeError(
                    f"something shared needs {named(hint)}, which is made for each run"
                    if hint in there
                    else str(error)
                ) from error
            absent.append(hint)
            stand_ins.provide(_absent(hint), provides=hint)


def provided(providers: Iterable[Provider]) -> set[object]:
    """Everything that can be made."""
    found: set[object] = {RunContext}
    for provider in providers:
        found.update(each.provides.type_hint for each in provider.factories)
        found.update(each.provides.type_hint for each in provider.aliases)
    return found


def named(hint: object) -> str:
    """A type as people read it."""
    if isinstance(hint, type):
        return (
            hint.__qualname__
            if hint.__module__ == "builtins"
            else f"{hint.__module__}.{hint.__qualname__}"
        )
    return str(hint)


def _absent(hint: object) -> types.FunctionType:
    def make() -> object:
        raise _Absent(named(hint))

    assert isinstance(make, types.FunctionType)
    return make
