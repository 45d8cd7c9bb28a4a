"""Runs whose events are held back until the reply to what begins them is out."""

from __future__ import annotations

from collections.abc import Callable


class Starting:
    """A start whose reply is not out yet. Ended by `begun` or `refused`, whichever comes."""

    def __init__(self, end: Callable[[tuple[int, int] | None], None]) -> None:
        """`end` is told from where to deliver; None if there is no such run."""
        self._end = end

    def begun(self, after: int, epoch: int) -> None:
        """The reply is out: deliver from there, unless the socket follows the thread already."""
        self._end((after, epoch))

    def refused(self) -> None:
        """There is no such run, so nobody has to follow it."""
        self._end(None)


class Awaited:
    """A run that goes on once something was answered, whose events are held back until the reply is out."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._over = False

    def over(self) -> None:
        """The reply is out, or will not come; may be called twice."""
        if not self._over:
            self._over = True
            self._end()
