"""Synchronous agent code: a thread of its own for each call, and the way back from it.

A fresh thread, not a pool: no thread-local of one user's call is there for the next, and a call that
never returns holds up nobody. The context variables of the caller go along. Threads are daemons, since
Python cannot stop one: what its run has abandoned must not keep the process.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def in_thread(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a synchronous function; a cancelled caller goes on at once, the thread ends when it ends."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[R] = loop.create_future()
    context = contextvars.copy_context()

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
    return await future


def on_event_loop() -> bool:
    """Whether this thread runs an event loop right now."""
    return asyncio._get_running_loop() is not None


def wait_from_thread(loop: asyncio.AbstractEventLoop, awaitable: Awaitable[R]) -> R:
    """Wait, in a thread, for something that runs on the loop.

    Raises:
        RuntimeError: called on the event loop, which would wait for itself.
    """
    if on_event_loop():
        if asyncio.iscoroutine(awaitable):
            awaitable.close()
        raise RuntimeError("this is for synchronous code in a thread; here, use `await`")
    return asyncio.run_coroutine_threadsafe(_awaited(awaitable), loop).result()


async def _awaited(awaitable: Awaitable[R]) -> R:
    return await awaitable


def _deliver(loop: asyncio.AbstractEventLoop, settle: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(settle)


def _succeed(future: asyncio.Future[R], result: R) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[R], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
