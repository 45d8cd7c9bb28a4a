"""Watches the event loop and the health of a service.

A loop that is held up by blocking work delays every user at once; the lag is measured, and a long
one is logged with the stack that caused it, taken from another thread while it lasts. Who shares the
loop with others' code (agents as tasks) listens, to say whose it was.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Final, Protocol

from factorychain._core.component import ComponentGroup, TaskSet
from factorychain._core.logging import get_logger
from factorychain._core.metrics import histogram

log = get_logger(__name__)

_lag = histogram("factorychain.loop.lag", "How late the event loop comes to its work")

# A loop that only waits for the interpreter, which a thread held, runs another task after this.
_SURE_AFTER_S: Final = 0.02


class HeldLoop(Protocol):
    """Hears of an event loop that is held up, in the watchdog's thread while the loop stands still."""

    def held_up(self, task: asyncio.Task[object] | None) -> Mapping[str, str]:
        """Take note; answer with what the log should say of it.

        Args:
            task: the one that the loop runs; None if it runs a callback or cannot be told.
        """

    def goes_round(self) -> None:
        """The loop has come to its work in time for a while."""


# Replaced as a whole: the watchdog's thread reads it.
_listeners: tuple[HeldLoop, ...] = ()


def listen(listener: HeldLoop) -> Callable[[], None]:
    """Have something told when the loop of this process is held up; call what this returns to end it."""
    global _listeners
    _listeners = (*_listeners, listener)

    def end() -> None:
        global _listeners
        _listeners = tuple(each for each in _listeners if each is not listener)

    return end


class Look(Enum):
    """What is new at a look at a loop."""

    NOTHING = auto()
    HELD_UP = auto()
    GOES_ROUND = auto()


class LoopBeats:
    """Judges a loop by the moments at which it gave a sign of life.

    Invariant: one long pause is told once; the loop goes round again when it has been in time for
    `settle_s`, so that many pauses in a row are one disturbance.
    """

    def __init__(self, *, interval_s: float, warn_s: float, settle_s: float) -> None:
        self._interval_s = interval_s
        self._warn_s = warn_s
        self._settle_s = settle_s
        self._told_s: float | None = None
        self._late_at_s: float | None = None

    def late_s(self, beat_s: float, now_s: float) -> float:
        """By how much the next sign of life is overdue."""
        return now_s - beat_s - self._interval_s

    def look(self, beat_s: float, now_s: float) -> Look:
        """`beat_s` is when the loop last gave a sign of life."""
        if self.late_s(beat_s, now_s) > self._warn_s:
            self._late_at_s = now_s
            new, self._told_s = beat_s != self._told_s, beat_s
            return Look.HELD_UP if new else Look.NOTHING
        if self._late_at_s is not None and now_s - self._late_at_s >= self._settle_s:
            self._late_at_s = None
            return Look.GOES_ROUND
        return Look.NOTHING


class LoopWatchdog:
    """Measures the lag of the loop that it is started in."""

    name = "loop watchdog"

    def __init__(
        self, *, interval_s: float = 0.1, warn_s: float = 0.5, settle_s: float = 2.0
    ) -> None:
        self._interval_s = interval_s
        self._look_every_s = warn_s / 2
        self._beats = LoopBeats(interval_s=interval_s, warn_s=warn_s, settle_s=settle_s)
        self._tasks = TaskSet(self.name)
        self._beat_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
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
        self._loop = asyncio.get_running_loop()
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
        while not self._stopped.wait(self._look_every_s):
            found = self._beats.look(self._beat_s, time.monotonic())
            if found is Look.HELD_UP:
                self._tell(self._beat_s)
            elif found is Look.GOES_ROUND:
                log.info("the event loop goes round again")
                for each in _listeners:
                    each.goes_round()

    def _tell(self, beat_s: float) -> None:
        late_s = self._beats.late_s(beat_s, time.monotonic())
        task, stack = self._running(), self._stack()
        if self._beat_s != beat_s:
            task, stack = None, ""  # it goes on: what runs now is not what held it up
        told: dict[str, str] = {}
        for each in _listeners:
            told |= each.held_up(task)
        log.warning("the event loop is held up", late_s=round(late_s, 2), **told, stack=stack)
        # After the line: who waits for the count finds it written.
        self.blocked += 1

    def _running(self) -> asyncio.Task[object] | None:
        """The task that the loop runs; the same at two looks, or it cannot be told."""
        first = asyncio.current_task(self._loop)
        if self._stopped.wait(_SURE_AFTER_S):
            return None
        return first if asyncio.current_task(self._loop) is first else None

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
