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
from factorychain._process.asked import Asked, pack_loaded, pack_revision

Answer: TypeAlias = Callable[[], Awaitable[Sequence[bytes]]]
"""Begins when it is called; in parts, each of which fits a frame."""
HostCall: TypeAlias = Callable[[RunHost, Asked], Answer]

ASK: Final = "ask"
"""Answered in its turn: when what the agent has said before is on its way."""

_HISTORY_MAX: Final = 1000
_ASK_MAX_S: Final = 7 * 86_400.0
_NAME_MAX_CHARS: Final = 128
_REVISION_MAX: Final = 2**63 - 1


def _ask(host: RunHost, asked: Asked) -> Answer:
    async def answered(event: bytes, timeout_s: float) -> Sequence[bytes]:
        return [await host.ask(event, timeout_s)]

    return partial(answered, asked.body, asked.seconds("timeout_s", _ASK_MAX_S))


def _history(host: RunHost, asked: Asked) -> Answer:
    return partial(host.history, asked.integer("limit", 1, _HISTORY_MAX))


def _load(host: RunHost, asked: Asked) -> Answer:
    async def loaded(name: str) -> Sequence[bytes]:
        return pack_loaded(*await host.load(name))

    return partial(loaded, asked.text("name", _NAME_MAX_CHARS))


def _store(host: RunHost, asked: Asked) -> Answer:
    async def stored(name: str, value: bytes | None, revision: int) -> Sequence[bytes]:
        return [pack_revision(await host.store(name, value, revision))]

    value = None if asked.flag("removed") else asked.body
    name = asked.text("name", _NAME_MAX_CHARS)
    return partial(stored, name, value, asked.integer("revision", 0, _REVISION_MAX))


HOST_CALLS: Final[Mapping[str, HostCall]] = {
    ASK: _ask,
    "history": _history,
    "load": _load,
    "store": _store,
}
