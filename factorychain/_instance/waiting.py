"""How long a run has waited for its user: the time in which its lifetime stands still.

Pure: told when a question opens and closes, and what time it is. Invariant: times in which several questions
are open count once, and all of it is never more than the run may wait.
"""

from __future__ import annotations


class Waiting:
    """The waiting of one run."""

    def __init__(self, most_s: float) -> None:
        """`most_s`: how long it may wait in all."""
        self._most_s = most_s
        self._open = 0
        self._since_s = 0.0
        self._past_s = 0.0

    @property
    def now(self) -> bool:
        """Whether the run waits now."""
        return self._open > 0

    def begin(self, now_s: float) -> None:
        """A question was asked."""
        if not self._open:
            self._since_s = now_s
        self._open += 1

    def end(self, now_s: float) -> None:
        """A question is over."""
        self._open -= 1
        if not self._open:
            self._past_s += max(0.0, now_s - self._since_s)

    def waited_s(self, now_s: float) -> float:
        """For how long it has waited so far."""
        present_s = max(0.0, now_s - self._since_s) if self._open else 0.0
        return min(self._past_s + present_s, self._most_s)

    def left_s(self, now_s: float) -> float:
        """For how long it may wait still."""
        return self._most_s - self.waited_s(now_s)
