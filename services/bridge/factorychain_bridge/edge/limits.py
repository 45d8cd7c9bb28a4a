"""What one client may take: frames a second, and sockets a user.

Invariant: a count that was taken is given back exactly once, whatever way its socket ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from factorychain._core.ids import Principal


class TokenBucket:
    """Allows `per_s` a second on average and `burst` at once."""

    __slots__ = ("_at_s", "_burst", "_clock", "_left", "_per_s")

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._left = float(burst)
        self._clock = clock
        self._at_s = clock()

    def take(self) -> bool:
        """Take one; False when none is left."""
        now_s = self._clock()
        self._left = min(self._burst, self._left + max(0.0, now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def wait_s(self) -> float:
        """How long until there is one again."""
        return max(0.0, 1.0 - self._left) / self._per_s


class Place:
    """One socket's place among its user's; giving it back twice is giving it back once."""

    __slots__ = ("_release",)

    def __init__(self, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        if self._release is not None:
            release, self._release = self._release, None
            release()


class ConnectionCounts:
    """How many sockets each user has on this replica."""

    def __init__(self, per_user: int) -> None:
        self._per_user = per_user
        self._open: Counter[Principal] = Counter()

    def take(self, principal: Principal) -> Place | None:
        """A place for one more socket; None when the user has as many as are allowed."""
        if self._open[principal] >= self._per_user:
            return None
        self._open[principal] += 1
        return Place(lambda: self._give_back(principal))

    def of(self, principal: Principal) -> int:
        """How many sockets the user has now."""
        return self._open.get(principal, 0)

    def users(self) -> int:
        """How many users have a socket now."""
        return sum(1 for count in self._open.values() if count)

    def _give_back(self, principal: Principal) -> None:
        self._open[principal] -= 1
        if not self._open[principal]:
            del self._open[principal]
