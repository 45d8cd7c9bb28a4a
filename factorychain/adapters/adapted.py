"""What every agent has that is made of another library's object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, TypedDict, TypeVar

from factorychain.agent import Agent

A = TypeVar("A", bound="Adapted")


class Adapted(Agent):
    """An agent around an object that stays as its author made it."""

    adapted: ClassVar[object] = None
    """The object."""


class Options(TypedDict, total=False):
    """What an agent's class may say about itself, for an object that has no class: see `Agent`."""

    isolation: str
    memory_bytes: int
    cpu_s: float
    lifetime_s: float
    repeat_safe: bool
    read_paths: Sequence[str]
    network_ports: Sequence[int]
    env: Sequence[str]
    processes: bool


def class_for(
    base: type[A],
    found: object,
    *,
    name: str,
    description: str,
    options: Options,
    own: Mapping[str, object],
) -> type[A]:
    """A class of its own for an object.

    Args:
        base: the adapter's agent.
        found: the object.
        name: what users start.
        description: what lists say of it.
        options: what its runs may do.
        own: more attributes, of this adapter.

    Raises:
        TypeError: there is no such option.
    """
    unknown = sorted(set(options) - set(Options.__annotations__))
    if unknown:
        raise TypeError(f"agent() has no argument {unknown[0]!r}")
    attributes = {**own, **options, "adapted": found, "name": name, "__doc__": description}
    return type(base.__name__, (base,), attributes)


class MissingLibrary(ImportError):
    """An adapter's library is not installed; the text says what to install."""

    def __init__(self, adapter: str, library: str, extra: str) -> None:
        super().__init__(
            f"factorychain.adapters.{adapter} needs {library}: pip install 'factorychain[{extra}]'",
            name=library,
        )
