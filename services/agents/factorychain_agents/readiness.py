"""Whether this replica takes new work, as its health checks answer.

Invariant: not before the emitter has answered for the first time, and not while something that runs
agents is not well. A later outage of the emitter is held back by the link, and taking the replica out of
use would mend nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from factorychain._core.component import Component, TaskSet
from factorychain._core.link.readiness import Connecting

_LOOK_EVERY_S: Final = 0.5


class Readiness:
    """A component: reports serving or not."""

    name = "readiness"

    def __init__(
        self, link: Connecting, needed: Sequence[Component], say: Callable[[bool], None]
    ) -> None:
        self._link = link
        self._needed = needed
        self._say = say
        self._tasks = TaskSet(self.name)

    @property
    def healthy(self) -> bool:
        return self._tasks.healthy

    async def start(self) -> None:
        _ = self._tasks.spawn(self._watch(), "watch")

    async def stop(self) -> None:
        await self._tasks.close()

    def look(self) -> None:
        """Report how it is now."""
        self._say(all(each.healthy for each in self._needed))

    async def _watch(self) -> None:
        await self._link.wait_connected()
        while True:
            self.look()
            await asyncio.sleep(_LOOK_EVERY_S)
