"""Which runs and attempts were accepted: each once, for as long as its token could come again.

Invariant: a token that is still valid never starts an agent twice in one process, also long after its
run is over.
"""

from __future__ import annotations

from collections import deque


class AcceptedRuns:
    """Remembers accepted attempts until their tokens expire."""

    def __init__(self) -> None:
        self._attempts: dict[str, int] = {}
        self._kept_until_s: dict[str, float] = {}
        self._expiring: deque[tuple[float, str, int]] = deque()

    def __len__(self) -> int:
        return len(self._attempts)

    def add(self, run: str, attempt: int, expires_at_s: float, now_s: float) -> bool:
        """Note an attempt; False if this or a later one was noted before."""
        self._forget(now_s)
        if attempt <= self._attempts.get(run, 0):
            return False
        self._attempts[run] = attempt
        # Nearly in order: lifetimes differ little. One that waits behind a longer one waits a little.
        self._expiring.append((expires_at_s, run, attempt))
        return True

    def keep(self, run: str, attempt: int, expires_at_s: float) -> None:
        """The attempt has a token that is valid for longer."""
        if self._attempts.get(run) == attempt:
            self._kept_until_s[run] = expires_at_s
            self._expiring.append((expires_at_s, run, attempt))

    def _forget(self, now_s: float) -> None:
        while self._expiring and self._expiring[0][0] < now_s:
            _, run, attempt = self._expiring.popleft()
            if self._kept_until_s.get(run, 0.0) >= now_s:
                continue
            if self._attempts.get(run) == attempt:
                del self._attempts[run]
                self._kept_until_s.pop(run, None)
