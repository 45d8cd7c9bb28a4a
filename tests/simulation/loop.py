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

    __slots__ = ("args", "callback", "context", "dropped")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = copy_context() if context is None else context
        self.dropped = False

    def cancel(self) -> None:
        self.dropped = True

    def cancelled(self) -> bool:
        return self.dropped


class Process:
    """One life of a program: its callbacks, and its tasks, which vanish with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.ready: deque[Handle] = deque()
        self.tasks: list[asyncio.Task[Any]] = []


class OrderedTask(asyncio.Task[Any]):
    """A task that hashes by its number, so that sets of tasks have an order that is repeated."""

    def __init__(self, number: int, coro: Coroutine[Any, Any, Any], **options: Any) -> None:
        self.number = number  # before asyncio puts it into its own set of tasks
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.number


class SimulatedLoop(asyncio.AbstractEventLoop):
    """The loop. Time moves to the next timer when no process has anything to do."""

    def __init__(self, random: Random) -> None:
        self.now_s = 0.0
        self.current = Process("driver")
        self.failures: list[str] = []
        self._random = random
        self._numbers = count(1)
        self._timers: list[tuple[float, int, Handle, Process]] = []
        self._active: list[Process] = []
        self._closed = False
        self.processes: dict[Process, None] = {}
        self.digest = 0

    # --- what asyncio asks ------------------------------------------------------------------

    def time(self) -> float:
        return self.now_s

    def call_soon(  # type: ignore[override]  # asyncio's is generic in the callback, and its handles heavier
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        handle = Handle(callback, args, context)
        process = self.current
        if process.ready and process.alive and not self._closed:
            process.ready.append(handle)
        elif not self._closed:
            self._queue(process, handle)
        return handle

    def call_later(  # type: ignore[override]  # too
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Handle:
        handle = Handle(callback, args, context)
        if not self._closed:
            when = self.now_s + delay
            heappush(self._timers, (when, next(self._numbers), handle, self.current))
        return handle

    def call_at(  # type: ignore[override]  # too
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Handle:
        handle = Handle(callback, args, context)
        if not self._closed:
            heappush(self._timers, (when, next(self._numbers), handle, self.current))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        if self._closed:
            coro.close()
        options = {"loop": self, "name": name, "context": context}
        task = OrderedTask(next(self._numbers), cast("Coroutine[Any, Any, T]", coro), **options)
        self.current.tasks.append(task)
        self.processes[self.current] = None
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self._closed

    def is_closed(self) -> bool:
        return self._closed

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.failures.append(f"{context.get('message')}: {context.get('exception')!r}")

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
        handle = Handle(callback, args, Context())
        heappush(self._timers, (when_s, next(self._numbers), handle, process))

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

        Looks whenever nobody has anything to do, or after many turns.
        """
        asyncio._set_running_loop(self)
        try:
            while not done():
                if not self._active and not self._jump(limit_s):
                    return False
                for _ in range(_MANY_TURNS):
                    if not self._active:
                        break
                    self._turn()
            return True
        finally:
            asyncio._set_running_loop(None)

    def close(self) -> None:
        """The end of this world: what is left is destroyed, and whatever it schedules is ignored."""
        self._closed = True
        self._timers.clear()
        self._active.clear()

    def _queue(self, process: Process, handle: Handle) -> None:
        if not process.alive:
            return
        if not process.ready and not process.paused:
            self._active.append(process)
        process.ready.append(handle)

    def _turn(self) -> None:
        active = self._active
        process = active.pop(int(self._random.random() * len(active)) if len(active) > 1 else 0)
        if process.paused or not process.alive:
            return
        self.current = process
        self.digest = hash((self.digest, process.name, self.now_s))
        ready = process.ready
        for _ in range(len(ready)):
            if ready:  # it may have been killed by what it did
                handle = ready.popleft()
                if not handle.dropped:
                    try:
                        handle.context.run(handle.callback, *handle.args)
                    except Exception as error:
                        self.failures.append(f"in {handle.callback!r}: {error!r}")
        if ready and process not in active:
            active.append(process)
        self.now_s += _TURN_S
        if self._timers and self._timers[0][0] <= self.now_s:
            self._due()

    def _jump(self, limit_s: float) -> bool:
        """Moves time to the next timer; False if there is none before the limit."""
        while self._timers:
            when_s, _, handle, process = self._timers[0]
            if handle.dropped or not process.alive:
                heappop(self._timers)
                continue
            if when_s > limit_s:
                break
            self.now_s = max(self.now_s, when_s)
            self._due()
            return True
        self.now_s = max(self.now_s, limit_s)
        return False

    def _due(self) -> None:
        while self._timers and self._timers[0][0] <= self.now_s:
            _, _, handle, process = heappop(self._timers)
            if not handle.dropped:
                self._queue(process, handle)
