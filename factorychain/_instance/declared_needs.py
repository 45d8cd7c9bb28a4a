"""Reads what an agent's class asks for, and refuses what has no meaning.

Invariant: needs that come out of here can be granted or refused as they stand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar, cast

from factorychain._instance.needs import Isolation, Needs
from factorychain.agent import Agent

_CHAIN: Final = "FACTORYCHAIN_"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PORT_MAX: Final = 65_535
_T = TypeVar("_T")


def needs_of(cls: type[Agent]) -> Needs:
    """Read what a class declares.

    Raises:
        TypeError: an attribute has no meaning as it is; the text names it and says how to mend it.
    """
    isolation: object = cls.isolation
    if isolation not in ("", "process", "task"):
        raise TypeError(f"isolation is {isolation!r}; use 'process' or 'task'")
    processes: object = cls.processes
    if not isinstance(processes, bool):
        raise TypeError(f"processes is {processes!r}; use True or False")
    return Needs(
        isolation=cast("Isolation", isolation) if isolation else None,
        memory_bytes=int(_amount("memory_bytes", cls.memory_bytes)),
        cpu_s=_amount("cpu_s", cls.cpu_s),
        lifetime_s=_amount("lifetime_s", cls.lifetime_s),
        read_paths=_each("read_paths", cls.read_paths, _path),
        network_ports=_each("network_ports", cls.network_ports, _port),
        env=_each("env", cls.env, _variable),
        processes=processes,
    )


def _amount(name: str, value: object) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= cast("float", value) < math.inf:
        raise TypeError(f"{name} is {value!r}; use a number above 0, or 0 for the operator's limit")
    return cast("float", value)


def _each(name: str, values: object, read: Callable[[object], _T]) -> tuple[_T, ...]:
    """The values in a fixed order, each once."""
    if isinstance(values, str) or not isinstance(values, Sequence | set | frozenset):
        raise TypeError(f"{name} is {values!r}; use a list")
    try:
        return tuple(dict.fromkeys(read(each) for each in values))
    except ValueError as error:
        raise TypeError(f"{name}: {error}") from error


def _path(value: object) -> str:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError(f"{value!r} is no path")
    return str(Path(value).expanduser().absolute())


def _port(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _PORT_MAX:
        raise ValueError(f"{value!r} is no TCP port; use 1 to {_PORT_MAX}")
    return value


def _variable(value: object) -> str:
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        raise ValueError(f"{value!r} is no name of a variable")
    if value.startswith(_CHAIN):
        raise ValueError(f"{value} belongs to the chain; agents cannot have it")
    return value
