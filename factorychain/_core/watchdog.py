"""Watches the event loop and the health of a service.

A loop that is held up by blocking work delays every user at once; the lag is measured, and a long
one is logged with the stack that caused it, taken from another thread while it lasts.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback

from factorychain._core.component import ComponentGroup, TaskSet
from factorychain._core.logging import get_logger
from factorychain._core.metrics import histogram

log = get_logger(__name__)

_lag = histogram("factorychain.loop.lag", "How late the event loop comes to its work")


class LoopWatchdog:
    """Measures the lag of the loop that it is started in."""

    name = "loop watchdog"

    def __init__(self, *, interval_s: float = 0.1, warn_s: float = 0.5) -> None:
        self._interval_s = interval_s
        self._warn_s = warn_s
        self._tasks = TaskSet(self.name)
        self._beat_s = 0.0
        self._loop_thread = 0
        self._stopped = threading.Event()
        self._observer: threading.Thread | None = None
        self.blocked = 0
        """How often the loop was held up for longer than `warn_s`."""

    @property
    def healthy(self) -> bool:
        return self._tasks.healthy

    async def start(self) -> None:
        self._beat_s = time.monotonic()
        self._loop_thread = threading.get_ident()
        _ = self._tasks.spawn(self._beat(), "beat")
        self._observer = threading.Thread(target=self._observe, name="loop-watchdog", daemon=True)
        self._observer.start()

    async def stop(self) -> None:
        self._stopped.set()
        await self._tasks.close()

    async def _beat(self) -> None:
        while True:
            due_s = time.monotonic() + self._interval_s
            await asyncio.sleep(self._interval_s)
            self._beat_s = time.monotonic()
            _lag.record(max(0.0, self._beat_s - due_s))

    def _observe(self) -> None:
        reported_s = 0.0
        while not self._stopped.wait(self._warn_s / 2):
            beat_s = self._beat_s
            late_s = time.monotonic() - beat_s - self._interval_s
            if late_s > self._warn_s and beat_s != reported_s:
                reported_s = beat_s
                log.warning(
                    "the event loop is held up", late_s=round(late_s, 2), stack=self._stack()
                )
                # After the line: who waits for the count finds it written.
                self.blocked += 1

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        return "".join(traceback.format_stack(frame)[-6:]) if frame is not None else ""


class HealthWatch:
    """Says in the log when a component of a group stops or starts being well."""

    name = "health watch"

    def __init__(self, group: ComponentGroup, *, interval_s: float = 1.0) -> None:
        self._group = group
        self._interval_s = interval_s
        self._tasks = TaskSet(self.name)
        self._unhealthy: set[str] = set()

    @property
    def healthy(self) -> bool:
        return self._tasks.healthy

    async def start(self) -> None:
        _ = self._tasks.spawn(self._watch(), "watch")

    async def stop(self) -> None:
        await self._tasks.close()

    async def _watch(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(self._interval_s)

    def look(self) -> None:
        """Compares with the last look."""
        now = set(self._group.unhealthy())
        for name in sorted(now - self._unhealthy):
            log.error("a component is not healthy", component=name)
        for name in sorted(self._unhealthy - now):
            log.info("a component is healthy again", component=name)
        self._unhealthy = now
