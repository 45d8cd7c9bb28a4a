"""What an instance may ask its host for, by name.

A call is three things: a method of `RunHost`, its line in `RemoteHost` (which asks by the call's name) and
its function here, which checks the arguments before it calls the host's method.

Invariant: nothing else than what is listed here can be asked for, and arguments of another type than a
call takes end the process: our side of it never sends them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias

from factorychain._instance.host import RunHost
from factorychain._process.asked import Asked

Answer: TypeAlias = Callable[[], Awaitable[Sequence[bytes]]]
"""Begins when it is called; in parts, each of which fits a frame."""
HostCall: TypeAlias = Callable[[RunHost, Asked], Answer]

_HISTORY_MAX: Final = 1000


def _history(host: RunHost, asked: Asked) -> Answer:
    return partial(host.history, asked.integer("limit", 1, _HISTORY_MAX))


HOST_CALLS: Final[Mapping[str, HostCall]] = {
    "history": _history,
}
