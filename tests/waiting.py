"""Waiting for a thing instead of for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_S = 0.01


async def until(ask: Callable[[], Awaitable[T | None]], timeout_s: float = 30.0) -> T:
    """The first answer that is true."""
    async with asyncio.timeout(timeout_s):
        while True:
            answer = await ask()
            if answer:
                return answer
            await asyncio.sleep(_POLL_S)


async def until_not(ask: Callable[[], Awaitable[object]], timeout_s: float = 30.0) -> None:
    """Return when the answer is false."""

    async def is_false() -> bool:
        return not await ask()

    await until(is_false, timeout_s)


async def until_true(holds: Callable[[], object], timeout_s: float = 30.0) -> None:
    """As `until`, of what needs no waiting to be asked."""

    async def ask() -> bool:
        return bool(holds())

    await until(ask, timeout_s)
