"""How many idle run processes to keep: enough for the next burst, as large as the latest were.

Pure: told of every start with its time, asked for a number. Invariant: what it asks for follows a burst
at once and forgets it by half in each half-life; it never leaves the bounds that the operator set.
"""

from __future__ import annotations

import math
from collections import deque


class Demand:
    """The demand for processes of one kind."""

    def __init__(
        self, least: int, most: int, *, window_s: float = 1.0, half_life_s: float = 30.0
    ) -> None:
        """At least and at most so many; a burst is what starts within the window."""
        self._least = least
        self._most = max(least, most)
        self._window_s = window_s
        self._half_life_s = half_life_s
        self._starts: deque[float] = deque()
        self._peak = 0.0
        self._peak_at_s = 0.0

    def started(self, now_s: float) -> None:
        """A run took a process, or waits for one."""
        self._forget(now_s)
        self._starts.append(now_s)
        burst = float(len(self._starts))
        if burst >= self._remembered(now_s):
            self._peak, self._peak_at_s = burst, now_s

    def idle_wanted(self, now_s: float) -> int:
        """How many should wait for a run now."""
        wanted = math.ceil(self._remembered(now_s) - 0.5)
        return min(max(wanted, self._least), self._most)

    def _remembered(self, now_s: float) -> float:
        halves = (now_s - self._peak_at_s) / self._half_life_s
        return self._peak * math.exp2(-min(halves, 64.0))

    def _forget(self, now_s: float) -> None:
        # More starts than are ever kept idle say nothing more.
        while self._starts and (
            self._starts[0] <= now_s - self._window_s or len(self._starts) > self._most
        ):
            self._starts.popleft()
