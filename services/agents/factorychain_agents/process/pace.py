"""How fast one run may say something, so that it does not take the chain from the others.

Pure: told of every event (or of bytes) with its time, asked how long to wait. Invariant: over any time a
run says no more than its burst and its rate times that time.
"""

from __future__ import annotations


class Pace:
    """A bucket of events, or of bytes."""

    def __init__(self, per_s: float, burst: float) -> None:
        """Full at first."""
        self._per_s = per_s
        self._burst = burst
        self._left = burst
        self._at_s = 0.0

    def take(self, now_s: float, amount: float = 1.0) -> float:
        """Take one event, or so much; seconds to wait before it is passed on."""
        earned = (now_s - self._at_s) * self._per_s if self._at_s else 0.0
        self._at_s = now_s
        self._left = min(self._left + earned, self._burst) - amount
        return max(-self._left / self._per_s, 0.0)
