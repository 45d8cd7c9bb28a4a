"""Attempts with growing pauses, for what must succeed some time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

FIRST_RETRY_S: Final = 0.05
LONGEST_RETRY_S: Final = 2.0


async def retries() -> AsyncIterator[None]:
    """One item an attempt, for ever, with a growing pause before each but the first."""
    pause_s = FIRST_RETRY_S
    while True:
        yield
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, LONGEST_RETRY_S)
