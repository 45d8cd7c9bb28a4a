"""Whether this engine takes new work, as its health checks answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from factorychain._core.component import Component, TaskSet

LOOK_EVERY_S: Final = 0.5


class Readiness:
    """A component: NOT_SERVING while one of the given components is not well."""

    name = "readiness"

    def __init__(self, needed: Sequence[Component], say: Callable[[bool], None]) -> None:
        self._needed = needed
        self._say = say
        self._tasks = TaskSet(self.name)

    @property
    def healthy(self) -> bool:
        return self._tasks.healthy

    async def start(self) -> None:
        self.look()
        _ = self._tasks.spawn(self._look_for_ever(), "look")

    async def stop(self) -> None:
        await self._tasks.close()

    def look(self) -> None:
        self._say(all(each.healthy for each in self._needed))

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()
