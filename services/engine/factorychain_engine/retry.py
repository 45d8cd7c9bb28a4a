"""Pauses between attempts: of what must succeed some time, and of those who were refused."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Final

from factorychain.errors import ErrorCode

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 2.0
HEALTHY_AFTER_S: Final = 5.0
"""What has worked for so long may fail anew without a long pause."""

PASSING: Final = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.RESOURCE_EXHAUSTED})
"""Refusals that say nothing about what was asked for: the same may succeed later."""

SPREAD: Final = 0.5
"""Those who are told to come back later are told so much more, at most, that they come apart."""


def spread(wait_s: float) -> float:
    """A wait for one of many who were refused, so that they do not all come back at once."""
    return round(wait_s * random.uniform(1.0, 1.0 + SPREAD), 1)


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
