"""Pauses between attempts of what must succeed some time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Final

from factorychain.errors import ErrorCode

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 2.0

PASSING: Final = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.RESOURCE_EXHAUSTED})
"""Refusals that say nothing about what was asked for: the same may succeed later."""


class Backoff:
    """Pauses that grow, each spread out so that many who failed together come back apart."""

    def __init__(self) -> None:
        self._pause_s = FIRST_PAUSE_S

    def reset(self) -> None:
        """What failed has worked for a while."""
        self._pause_s = FIRST_PAUSE_S

    async def pause(self) -> None:
        await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.0))
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)


async def retries() -> AsyncIterator[None]:
    """One item an attempt, for ever, with a growing pause before each but the first."""
    backoff = Backoff()
    while True:
        yield
        await backoff.pause()
