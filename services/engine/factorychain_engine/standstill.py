"""Notices that this process stood still: it was stopped or swapped out, or its machine was suspended.

Invariant: what was sent to it meanwhile is not taken up before it was read who of its callers has given up.
A deadline travels as a duration, so a call that waited in a socket looks as young as the day it was made.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from factorychain._core.component import TaskSet
from factorychain._core.logging import get_logger

log = get_logger(__name__)

_LOOK_EVERY_S: Final = 1.0
_LONG_S: Final = 3.0
"""Shorter than any caller waits for a start."""
CATCH_UP_S: Final = 0.5
"""What lies in the sockets is read within this."""


class Standstill:
    """A component: looks at the clock."""

    name = "standstill"

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_s = clock()
        self._caught_up_s = self._last_s
        self._tasks = TaskSet(self.name)

    @property
    def healthy(self) -> bool:
        return self._tasks.healthy

    async def start(self) -> None:
        self._last_s = self._clock()
        _ = self._tasks.spawn(self._watch(), "look")

    async def stop(self) -> None:
        await self._tasks.close()

    async def caught_up(self) -> None:
        """Returns at once, or after a standstill when callers that have given up were heard: who has is
        cancelled here.
        """
        self._look()
        left_s = self._caught_up_s - self._clock()
        if left_s > 0:
            await asyncio.sleep(left_s)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self._look()

    def _look(self) -> None:
        before_s, self._last_s = self._last_s, self._clock()
        late_s = self._last_s - before_s - _LOOK_EVERY_S
        if late_s > _LONG_S:
            self._caught_up_s = self._last_s + CATCH_UP_S
            log.warning("the process stood still", for_s=round(late_s, 1))
