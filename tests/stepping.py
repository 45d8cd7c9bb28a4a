"""Doing something exactly where a coroutine suspends for the n-th time: a cancel at every await."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Stepping(Generic[T]):
    """Awaits `work`, and calls `at_suspension` each time when it is about to suspend."""

    def __init__(self, work: Awaitable[T], at_suspension: Callable[[], None]) -> None:
        self._work = work
        self._at_suspension = at_suspension

    def __await__(self) -> Generator[Any, Any, T]:
        inner = self._work.__await__()
        resume: Callable[[], Any] = partial(next, inner)
        while True:
            try:
                future = resume()
            except StopIteration as done:
                result: T = done.value
                return result
            self._at_suspension()
            try:
                yield future
            except BaseException as error:  # what is thrown in belongs to the one who awaits
                resume = partial(inner.throw, error)
            else:
                resume = partial(next, inner)


async def cancelled_at(work: Awaitable[object], suspension: int) -> bool:
    """Await `work`, and cancel it where it suspends for this time, from 0; False if it never did."""
    left = suspension

    def count() -> None:
        nonlocal left
        if left == 0:
            task.cancel()
        left -= 1

    async def step() -> None:
        await Stepping(work, count)

    task = asyncio.ensure_future(step())
    await asyncio.wait({task})
    if task.cancelled():
        return True
    task.result()
    return False
