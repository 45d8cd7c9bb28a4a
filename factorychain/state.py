"""What an agent keeps between the runs of a conversation: one JSON value, changed by compare-and-set."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson

from factorychain._instance.active import ActiveRun
from factorychain._instance.values import NotJson, dumps
from factorychain.errors import StateConflict
from factorychain.input import Json

_NAME: Final = "state"
_ATTEMPTS: Final = 32
_FIRST_PAUSE_S: Final = 0.005
_LONGEST_PAUSE_S: Final = 0.2


class ThreadState:
    """The state of the run's conversation, from `ctx.state`. All its runs and agents share it."""

    def __init__(self, run: ActiveRun) -> None:
        self._run = run

    # Any: its author alone knows the shape of what an agent keeps.

    async def get(self, default: object = None) -> Any:
        """What is kept; `default` if nothing is."""
        found, _ = await self._load(default)
        return found

    async def set(self, value: object) -> None:
        """Keep a value instead of whatever there was; None keeps nothing any more.

        Raises:
            TypeError: the value has no JSON form.
            StateLimit: it is larger than a value may be (512 KiB unless the operator says otherwise).
        """
        await self.update(lambda _: value)

    async def update(
        self, change: Callable[[Any], object | Awaitable[object]], default: object = None
    ) -> Any:
        """Change what is kept, from what it is: two changes at once are both made, one after the other.

        Args:
            change: gets what is kept and returns what is to be kept instead, None for nothing. It is
                called again if something else was stored meanwhile, so it must do nothing else.
            default: what it gets if nothing is kept.

        Returns:
            What is kept now.

        Raises:
            TypeError: what it returned has no JSON form.
            StateLimit: it is larger than a value may be.
            StateConflict: others changed it each time, many times in a row.
        """
        pause_s = _FIRST_PAUSE_S
        for _ in range(_ATTEMPTS):
            found, revision = await self._load(default)
            changed = change(found)
            encoded = _encoded(await changed if inspect.isawaitable(changed) else changed)
            try:
                await self._run.host.store(_NAME, encoded, revision)
            except StateConflict:
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                continue
            return None if encoded is None else _decoded(encoded)
        raise StateConflict(_NAME)

    async def _load(self, default: object) -> tuple[object, int]:
        found, revision = await self._run.host.load(_NAME)
        return (default if found is None else _decoded(found)), revision


def _encoded(value: object) -> bytes | None:
    if value is None:
        return None
    try:
        return dumps(value).encode()
    except NotJson as error:
        raise TypeError(f"ctx.state: the value has no JSON form: {error}") from error


def _decoded(found: bytes) -> Json:
    value: Json = orjson.loads(found)
    return value
