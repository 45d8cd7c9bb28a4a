"""Synchronous agent code: a thread of its own for each call, and the way back from it.

A fresh thread, not a pool: no thread-local of one user's call is there for the next, and a call that
never returns holds up nobody. The context variables of the caller go along. Threads are daemons, since
Python cannot stop one: what its run has abandoned must not keep the process.

Invariant: what a thread waits for on the loop ends with the call that the thread was made for. A call
that is cancelled cancels it, waits for it, and lets the thread begin nothing more.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar

from factorychain.errors import RunEnded

P = ParamSpec("P")
R = TypeVar("R")


class _Waits:
    """What the thread of one call waits for on the loop. Used on the loop only."""

    __slots__ = ("_left", "_tasks")

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()
        self._left = False

    async def within(self, awaitable: Awaitable[R]) -> R:
        if self._left:
            _drop(awaitable)
            raise RunEnded(
                "the call was cancelled or its time was up; nothing more can begin in it"
            )
        task = asyncio.current_task()
        assert task is not None, "a coroutine of run_coroutine_threadsafe is a task"
        self._tasks.add(task)
        try:
            return await awaitable
        finally:
            self._tasks.discard(task)

    async def leave(self) -> None:
        self._left = True
        left = set(self._tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)


_waits: contextvars.ContextVar[_Waits | None] = contextvars.ContextVar(
    "factorychain_waits", default=None
)


async def in_thread(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a synchronous function; a cancelled caller goes on at once, the thread ends when it ends."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[R] = loop.create_future()
    context = contextvars.copy_context()
    waits = _Waits()
    context.run(_waits.set, waits)

    def work() -> None:
        try:
            result = context.run(function, *args, **kwargs)
        except StopIteration as error:  # a future refuses it, as a coroutine would
            _deliver(loop, partial(_fail, future, RuntimeError(f"StopIteration: {error}")))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the caller
            _deliver(loop, partial(_fail, future, error))
        else:
            _deliver(loop, partial(_succeed, future, result))

    threading.Thread(target=work, name="agent code", daemon=True).start()
    try:
        return await future
    except asyncio.CancelledError:
        await waits.leave()
        raise


def on_event_loop() -> bool:
    """Whether this thread runs an event loop right now."""
    return asyncio._get_running_loop() is not None


def wait_from_thread(loop: asyncio.AbstractEventLoop, awaitable: Awaitable[R]) -> R:
    """Wait, in a thread, for something that runs on the loop.

    Raises:
        RuntimeError: called on the event loop, which would wait for itself.
        RunEnded: the call that the thread was made for is over.
    """
    if on_event_loop():
        _drop(awaitable)
        raise RuntimeError("this is for synchronous code in a thread; here, use `await`")
    waiting = (_waits.get() or _Waits()).within(awaitable)
    try:
        future = asyncio.run_coroutine_threadsafe(waiting, loop)
    except RuntimeError:  # the loop is closed, and with it everything that it ran
        waiting.close()
        _drop(awaitable)
        raise RunEnded("the run is over; nothing more can begin in it") from None
    return future.result()


def _drop(awaitable: Awaitable[object]) -> None:
    if asyncio.iscoroutine(awaitable):
        awaitable.close()


def _deliver(loop: asyncio.AbstractEventLoop, settle: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(settle)


def _succeed(future: asyncio.Future[R], result: R) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[R], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
