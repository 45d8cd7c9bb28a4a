"""How many runs fit into this process, and when the next is likely to.

Pure: a clock is passed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

REMEMBERED_ENDINGS: Final = 32
LEAST_S: Final = 0.5
MOST_S: Final = 30.0
UNKNOWN_S: Final = 5.0
"""What is said while no run has ended yet."""


class Room:
    """The places of this process."""

    def __init__(self, capacity: int, clock: Callable[[], float]) -> None:
        self.capacity = capacity
        self._clock = clock
        self._running = 0
        self._endings: deque[float] = deque(maxlen=REMEMBERED_ENDINGS)

    @property
    def running(self) -> int:
        return self._running

    @property
    def is_full(self) -> bool:
        return self._running >= self.capacity

    def came(self) -> None:
        """A run has begun."""
        self._running += 1

    def left(self) -> None:
        """A run is over."""
        self._running -= 1
        self._endings.append(self._clock())

    def free_in_s(self) -> float:
        """A guess: runs go on ending as often as the last ones did; 0 while there is a place."""
        if not self.is_full:
            return 0.0
        if not self._endings:
            return UNKNOWN_S
        between_s = (self._clock() - self._endings[0]) / len(self._endings)
        return min(max(between_s, LEAST_S), MOST_S)
