"""Agents made with other libraries, served as they are.

Invariant: nothing here imports a library that the agent's author has not imported: what an object is, is
read from the names of its classes.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Final, Protocol, cast

from factorychain.adapters.adapted import Adapted, MissingLibrary
from factorychain.agent import Agent

__all__ = ["Adapted", "MissingLibrary", "adapt", "agent_class", "install_hint", "offered"]


@dataclass(frozen=True, slots=True)
class _Library:
    """A library whose objects can be served."""

    package: str
    base: str
    """The class that all such objects inherit."""
    adapter: str
    """The module that makes agents of them: its `agent(object, name=…)`."""
    extra: str
    """Of the `factorychain` distribution."""


_LIBRARIES: Final = (
    _Library("langgraph", "Pregel", "factorychain.adapters.langgraph", "langgraph"),
    _Library("pydantic_ai", "AbstractAgent", "factorychain.adapters.pydantic_ai", "pydantic-ai"),
)
_EXTRAS: Final[Mapping[str, str]] = {
    "langgraph": "langgraph",
    "langchain_core": "langgraph",
    "pydantic_ai": "pydantic-ai",
}
"""What to install for a package that an author's module could not import."""
_UNREADY: Final[Mapping[tuple[str, str], str]] = {
    ("langgraph", "StateGraph"): "is not compiled: serve what its compile() returns",
}
"""Objects that are nearly what an adapter serves, and what is missing."""


class _Adapter(Protocol):
    def agent(self, found: object, /, *, name: str) -> type[Agent]: ...


def adapt(found: object, name: str) -> type[Agent] | None:
    """An agent's class for an object of a known library; None if it is no such object.

    Args:
        found: such as a compiled graph.
        name: what the agent is called where its author has not said.

    Raises:
        TypeError: it cannot be served as it is; the text says how to mend it.
    """
    library = _library_of(found)
    if library is None:
        _check_ready(found)
        return None
    adapter = cast("_Adapter", import_module(library.adapter))
    return adapter.agent(found, name=_agent_name(name))


def agent_class(found: object, module: str, name: str) -> type[Agent] | None:
    """The agent that a module's attribute is or can be made; None: neither.

    Invariant: its class is found again by its module and qualified name, in any process.
    """
    if not isinstance(found, type):
        found = adapt(found, name)
    if not isinstance(found, type) or not issubclass(found, Agent):
        return None
    if issubclass(found, Adapted):
        found.__module__, found.__qualname__ = module, name
    return found


def offered(module: types.ModuleType) -> list[type[Agent]]:
    """The agents of a module that are no classes of its own: made by an adapter, or to be made.

    What an adapter was asked for in the module takes the place of the bare object.
    """
    public = {name: each for name, each in vars(module).items() if not name.startswith("_")}
    made = [(name, each) for name, each in public.items() if _is_adapted(each)]
    taken = {id(cast("type[Adapted]", each).adapted) for _, each in made}
    bare: list[tuple[str, object]] = []
    for name, each in public.items():
        if id(each) not in taken and _library_of(each) is not None:
            taken.add(id(each))
            bare.append((name, each))
    found = [agent_class(each, module.__name__, name) for name, each in [*made, *bare]]
    return [each for each in found if each is not None]


def install_hint(package: str) -> str:
    """What to install for a package that cannot be imported; empty if that is not known."""
    extra = _EXTRAS.get(package)
    return f"pip install 'factorychain[{extra}]'" if extra else ""


def _library_of(found: object) -> _Library | None:
    kinds = _kinds(found)
    return next((each for each in _LIBRARIES if (each.package, each.base) in kinds), None)


def _check_ready(found: object) -> None:
    for kind in _kinds(found) & _UNREADY.keys():
        raise TypeError(f"a {kind[1]} {_UNREADY[kind]}")


def _kinds(found: object) -> set[tuple[str, str]]:
    """The classes of an object: (top package, name)."""
    if isinstance(found, type):
        return set()
    return {(each.__module__.partition(".")[0], each.__name__) for each in type(found).__mro__}


def _is_adapted(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, Adapted) and found.adapted is not None


def _agent_name(variable: str) -> str:
    return variable.rpartition(".")[2].strip("_").lower()
