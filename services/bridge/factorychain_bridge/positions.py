"""Where in the log a thread's recent events are, so that who comes back does not read from its start.

Stream sequences stay on the server: a client names a `seq`, and reading by it means searching the
stream. What went by here is remembered, and for a few seconds, sparsely, after the last subscriber of
a thread has left: whose connection was cut comes back at once.

Invariant: what is remembered is a hint that can only save reading; it is bounded, and nothing of a run
is left two rounds of `forget` after the last subscriber has gone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_KEPT_LIVE = 256


@dataclass(frozen=True, slots=True)
class Known:
    """A message of a thread's log."""

    epoch: int
    last_seq: int
    """Seq of its last event."""
    stream_seq: int


class ThreadPositions:
    """Recent messages of one thread, in order."""

    def __init__(self, known: tuple[Known, ...] = ()) -> None:
        self._known = deque(known, maxlen=_KEPT_LIVE)

    def add(self, epoch: int, last_seq: int, stream_seq: int) -> None:
        self._known.append(Known(epoch, last_seq, stream_seq))

    def before(self, epoch: int, seq: int) -> int:
        """A stream sequence up to which a reader who has `seq` has everything; 0: not known."""
        for each in reversed(self._known):
            if each.epoch == epoch and each.last_seq <= seq:
                return each.stream_seq
        return 0

    def sparse(self) -> tuple[Known, ...]:
        """The last, the one before it, the fourth from the end, the eighth…"""
        found, back = [], 1
        while back <= len(self._known):
            found.append(self._known[-back])
            back *= 2
        return tuple(reversed(found))


class RecentPositions:
    """Sparse positions of threads that nobody watches here any more, for one to two rounds."""

    def __init__(self, max_threads: int = 1000) -> None:
        self._max_threads = max_threads
        self._new: dict[tuple[str, str], tuple[Known, ...]] = {}
        self._old: dict[tuple[str, str], tuple[Known, ...]] = {}

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def keep(self, ukey: str, thread: str, positions: ThreadPositions) -> None:
        sparse = positions.sparse()
        if sparse and len(self) < self._max_threads:
            self._new[ukey, thread] = sparse

    def take(self, ukey: str, thread: str) -> ThreadPositions:
        """What is known of the thread; it is not kept any more."""
        old = self._old.pop((ukey, thread), ())
        return ThreadPositions(self._new.pop((ukey, thread), old))

    def forget(self) -> None:
        """A round is over."""
        self._old, self._new = self._new, {}
