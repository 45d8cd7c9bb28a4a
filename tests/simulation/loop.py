"""An event loop of our own: virtual time, processes instead of one queue, and a seed that schedules.

Invariants: nothing waits for real time; within one process callbacks keep asyncio's order, between
processes the seed decides; what a killed process had queued or would have been woken for never runs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from contextvars import Context, copy_context
from functools import partial
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any, NoReturn, TypeVar, cast

T = TypeVar("T")

_TURN_S = 2e-6
"""What one turn of a process takes: without it, whoever polls with `sleep(0)` would stop time."""
_MANY_TURNS = 256


class Handle:
    """What asyncio and the services use of `asyncio.Handle` and `TimerHandle`, and a simulation pays for."""

    dropped = False

    def cancel(self) -> None:
        self.dropped = True

    def cancelled(self) -> bool:
        return self.dropped


Entry = tuple[Callable[..., object], tuple[Any, ...], Context, Handle | None]
"""A callback with its arguments, its context, and the handle that somebody may drop it by."""


class Process:
    """One life of a program: its callbacks, and its tasks, which vanish with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.ready: deque[Entry] = deque()


class OrderedTask(asyncio.Task[Any]):
    """A task that hashes by its number, so that sets of tasks have an order that is repeated."""

    number = 0
    """While asyncio makes it; then that of the task."""

    def __hash__(self) -> int:
        return self.number


class SimulatedLoop(asyncio.AbstractEventLoop):
    """The loop. Time moves to the next timer when no process has anything to do."""

    def __init__(self, random: Random) -> None:
        self.now_s = 0.0
        self.current = Process("driver")
        self.failures: list[str] = []
        self.look_at_s = 0.0
        """When `run_until` asks next whether it is done."""
        self.digest = 0
        self._random = random
        self._numbers = count(1)
        self._timers: list[tuple[float, int, Process, Entry]] = []
        self._active: list[Process] = []
        self._closed = False
        # Tasks are held here alone, if nothing else does: none is destroyed while the world lasts.
        self._tasks: list[OrderedTask] = []
        # A call less for each of the many.
        self.create_future = partial(asyncio.Future, loop=self)  # type: ignore[method-assign]

    # --- what asyncio asks ------------------------------------------------------------------

    def time(self) -> float:
        return self.now_s

    def call_soon(  # type: ignore[override]  # asyncio's is generic in the callback, and its handles heavier
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        entry: Entry
        if context is None:
            handle = Handle()
            entry = callback, args, copy_context(), handle
        else:
            handle = _NOBODYS
            entry = callback, args, context, None
        process = self.current
        ready = process.ready
        if not ready:
            if not process.alive:
                return handle
            if not process.paused:
                self._active.append(process)
        ready.append(entry)
        return handle

    def call_later(  # type: ignore[override]  # too
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Handle:
        handle = Handle()
        entry = (callback, args, copy_context() if context is None else context, handle)
        when = self.now_s + delay
        heappush(self._timers, (when, next(self._numbers), self.current, entry))
        return handle

    def call_at(  # type: ignore[override]  # too
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Handle:
        handle = Handle()
        entry = (callback, args, copy_context() if context is None else context, handle)
        heappush(self._timers, (when, next(self._numbers), self.current, entry))
        return handle

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        if self._closed:
            coro.close()
        number = next(self._numbers)
        task = OrderedTask(
            cast("Coroutine[Any, Any, T]", coro), loop=self, name=name, context=context
        )
        task.number = number
        self._tasks.append(task)
        return task

    get_debug = staticmethod(bool)  # asked for each future: false, as fast as can be

    def is_running(self) -> bool:
        return not self._closed

    def is_closed(self) -> bool:
        return self._closed

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._failed(f"{context.get('message')}: {context.get('exception')!r}")

    def call_soon_threadsafe(self, *_: object, **__: object) -> NoReturn:
        raise RuntimeError("a simulation has no threads")

    def run_in_executor(self, *_: object, **__: object) -> NoReturn:
        raise RuntimeError("a simulation has no threads; `asyncio.to_thread` is run inline")

    # --- processes --------------------------------------------------------------------------

    @contextmanager
    def within(self, process: Process) -> Generator[None, None, None]:
        """What is scheduled inside belongs to `process`."""
        before, self.current = self.current, process
        try:
            yield
        finally:
            self.current = before

    def call_in(
        self, process: Process, when_s: float, callback: Callable[..., object], *args: Any
    ) -> None:
        """Calls in another process, in an empty context."""
        entry = (callback, args, Context(), None)
        heappush(self._timers, (when_s, next(self._numbers), process, entry))

    def spawn(self, process: Process, coro: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        with self.within(process):
            return self.create_task(coro, name=name, context=Context())

    def kill(self, process: Process) -> None:
        process.alive = False
        process.ready.clear()

    def resume(self, process: Process) -> None:
        process.paused = False
        if process.ready and process not in self._active:
            self._active.append(process)

    # --- running ----------------------------------------------------------------------------

    def run_until(self, done: Callable[[], bool], limit_s: float) -> bool:
        """Runs until `done` or until the virtual time `limit_s`; whether it was done.

        Asks from `look_at_s` on, whenever nobody has anything to do, or after many turns.
        """
        asyncio._set_running_loop(self)
        try:
            while self.now_s < self.look_at_s or not done():
                if not self._active and not self._jump(limit_s):
                    return False
                self._turns(_MANY_TURNS)
            return True
        finally:
            asyncio._set_running_loop(None)

    def look(self) -> None:
        """Ask soon whether it is done."""
        self.look_at_s = self.now_s

    def close(self) -> None:
        """The end of this world: what is left is never destroyed, and whatever it schedules is ignored."""
        self._closed = True
        self._timers.clear()
        self._active.clear()
        self.current = _nowhere()

    def _failed(self, what: str) -> None:
        self.failures.append(what)
        self.look()

    def _turns(self, most: int) -> None:
        """So many turns, or until nobody has anything to do."""
        active, timers, chance = self._active, self._timers, self._random.random
        for _ in range(most):
            if not active:
                return
            process = active.pop(int(chance() * len(active)) if len(active) > 1 else 0)
            if process.paused or not process.alive:
                continue
            self.current = process
            self.digest = hash((self.digest, process.name, self.now_s))
            ready = process.ready
            for _ in range(len(ready)):
                if not ready:  # it was killed by what it did
                    break
                callback, args, context, handle = ready.popleft()
                if handle is None or not handle.dropped:
                    try:
                        context.run(callback, *args)
                    except Exception as error:
                        self._failed(f"in {callback!r}: {error!r}")
            if ready and process not in active:
                active.append(process)
            self.now_s += _TURN_S
            if timers and timers[0][0] <= self.now_s:
                self._due()

    def _jump(self, limit_s: float) -> bool:
        """Moves time to the next timer; False if there is none before the limit."""
        timers = self._timers
        while timers:
            when_s, _, process, entry = timers[0]
            if (entry[3] is not None and entry[3].dropped) or not process.alive:
                heappop(timers)
                continue
            if when_s > limit_s:
                break
            self.now_s = max(self.now_s, when_s)
            self._due()
            return True
        self.now_s = max(self.now_s, limit_s)
        return False

    def _due(self) -> None:
        timers, now_s = self._timers, self.now_s
        while timers and timers[0][0] <= now_s:
            _, _, process, entry = heappop(timers)
            handle = entry[3]
            if process.alive and (handle is None or not handle.dropped):
                if not process.ready and not process.paused:
                    self._active.append(process)
                process.ready.append(entry)


class _Nobodys(Handle):
    """Of what futures and tasks schedule: they name its context, and keep no handle."""

    def cancel(self) -> NoReturn:
        raise RuntimeError("a callback with a context of its own cannot be dropped here")


_NOBODYS = _Nobodys()


def _nowhere() -> Process:
    process = Process("nowhere")
    process.alive = False
    return process
