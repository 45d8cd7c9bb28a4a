"""How long the whole chain takes to make a run: from its start on a socket to its first event there.

Invariant: each start is counted at most once, and one whose run shows nothing here is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable

_REMEMBERED = 64


class Creations:
    """The starts of one socket that wait for their run's first event."""

    def __init__(self, now_s: Callable[[], float], record: Callable[[float], None]) -> None:
        """`record` is given each duration, in seconds."""
        self._now_s = now_s
        self._record = record
        self._began_s: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._began_s)

    def begin(self, run: str) -> None:
        """The run is being started; if it is already, the first start counts."""
        self._began_s.setdefault(run, self._now_s())
        if len(self._began_s) > _REMEMBERED:
            del self._began_s[next(iter(self._began_s))]

    def shown(self, run: str) -> None:
        """An event of the run is on its way to the client."""
        began_s = self._began_s.pop(run, None)
        if began_s is not None:
            self._record(self._now_s() - began_s)

    def forget(self, run: str) -> None:
        """The run was not made by this start."""
        self._began_s.pop(run, None)
