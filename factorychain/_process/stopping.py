"""How a run is told to stop, also while its code holds up the loop.

Invariant: the agent's task is cancelled once, by whatever asks first. If the loop does not come round to
it within a moment, the code that holds it up is interrupted where it stands, so that its `finally` blocks
run before the service, whose patience ends, kills the process.
"""

from __future__ import annotations

import asyncio
import signal
import types
from typing import Final

_STUCK_AFTER_S: Final = 0.5


class Stopping:
    """Cancels the task of the run. To be made in the main thread, which runs the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.reason = ""
        """`CPU_LIMIT`, or nothing if the service asked."""
        self._loop = loop
        self._task: asyncio.Task[None] | None = None
        self._asked = False
        self._heard = False

    def watch(self, task: asyncio.Task[None]) -> None:
        """The task to cancel; at once if that was asked for before."""
        self._task = task
        if self._asked:
            task.cancel()
        signal.signal(signal.SIGTERM, self._terminated)
        signal.signal(signal.SIGXCPU, self._out_of_time)
        signal.signal(signal.SIGALRM, self._stuck)

    def cancel(self) -> None:
        """Cancel the task, once."""
        self._heard = True
        if not self._asked:
            self._asked = True
            if self._task is not None:
                self._task.cancel()

    def _terminated(self, _number: int, _frame: types.FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self.cancel)
        signal.setitimer(signal.ITIMER_REAL, _STUCK_AFTER_S)

    def _out_of_time(self, number: int, frame: types.FrameType | None) -> None:
        if not self.reason:
            self.reason = "CPU_LIMIT"
            self._terminated(number, frame)

    def _stuck(self, _number: int, _frame: types.FrameType | None) -> None:
        if self._heard:
            return
        # Of another task of the agent's the run's own task does not hear: that is told as soon as it can.
        self._asked = self._heard = asyncio.current_task(self._loop) is self._task
        raise asyncio.CancelledError
