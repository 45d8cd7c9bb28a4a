"""Lifecycle: what runs is a component, and components start in order and stop in reverse.

Invariant: whatever was started is stopped, each within the deadline, also when a later start fails;
and no background task dies unheard.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from factorychain._core.logging import get_logger

log = get_logger(__name__)
T = TypeVar("T")


class Component(Protocol):
    """Something that runs. `start` returns when it is ready; `stop` drains and may be called twice."""

    @property
    def name(self) -> str: ...

    @property
    def healthy(self) -> bool: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


def detached(
    coro: Coroutine[Any, Any, T], *, name: str, loop: asyncio.AbstractEventLoop | None = None
) -> asyncio.Task[T]:
    """A task in an empty context: a shared task must not keep the identity of who started it."""
    running = loop or asyncio.get_running_loop()
    return running.create_task(coro, name=name, context=contextvars.Context())


class TaskSet:
    """Background tasks of one owner. A failure is logged, counted and reported.

    `healthy` suits an owner whose tasks must all run for as long as it does; one whose tasks each
    serve a single run has to judge for itself.
    """

    def __init__(
        self, owner: str, on_failure: Callable[[str, BaseException], None] | None = None
    ) -> None:
        self._owner = owner
        self._on_failure = on_failure
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self.failures = 0

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def healthy(self) -> bool:
        return self.failures == 0

    def spawn(self, coro: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Starts a task in an empty contextvars context; refused once the set is closed."""
        if self._closed:
            coro.close()
            raise RuntimeError(f"{self._owner} is stopping and starts no new task ({name})")
        task = detached(coro, name=f"{self._owner}:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        self.failures += 1
        log.error(
            "a background task failed", owner=self._owner, task=task.get_name(), exc_info=error
        )
        if self._on_failure is not None:
            self._on_failure(task.get_name(), error)

    async def finish(self, timeout_s: float) -> None:
        """Waits for what runs now, but not longer than that."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)

    async def close(self, timeout_s: float = 5.0) -> None:
        """Cancels what is left and waits for it; a task that resists is named in the log."""
        self._closed = True
        left = set(self._tasks)
        for task in left:
            task.cancel()
        if not left:
            return
        _, pending = await asyncio.wait(left, timeout=timeout_s)
        for task in pending:
            log.error("a task did not stop when cancelled", owner=self._owner, task=task.get_name())


class ComponentGroup:
    """Starts components in order and stops them in reverse, all within one deadline.

    Itself a component, so groups nest.
    """

    def __init__(
        self,
        components: Sequence[Component],
        *,
        name: str = "service",
        drain_timeout_s: float = 10.0,
    ) -> None:
        self.name = name
        self.components = tuple(components)
        self._drain_timeout_s = drain_timeout_s
        self._started: list[Component] = []

    @property
    def healthy(self) -> bool:
        """Everything is started and well."""
        return len(self._started) == len(self.components) and not self.unhealthy()

    def unhealthy(self) -> list[str]:
        """The names of those that are started and not well."""
        return [each.name for each in self._started if not each.healthy]

    async def start(self) -> None:
        for each in self.components:
            began_s = time.perf_counter()
            # Entered before the start: one that fails half-way is stopped too.
            self._started.append(each)
            try:
                await each.start()
            except BaseException as error:
                if isinstance(error, Exception):  # else it was told to stop meanwhile
                    log.error("a component did not start", component=each.name)
                await self.stop()
                raise
            log.debug(
                "started", component=each.name, ms=round((time.perf_counter() - began_s) * 1e3, 1)
            )

    async def stop(self) -> None:
        """Stops in reverse. A component gets what is left of the deadline, at least a moment."""
        deadline_s = time.monotonic() + self._drain_timeout_s
        while self._started:
            each = self._started.pop()
            await self._stop_one(each, max(0.2, deadline_s - time.monotonic()))

    async def _stop_one(self, component: Component, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await component.stop()
        except TimeoutError:
            log.error(
                "a component did not stop in time", component=component.name, after_s=timeout_s
            )
        except Exception:
            log.exception("a component failed to stop", component=component.name)
