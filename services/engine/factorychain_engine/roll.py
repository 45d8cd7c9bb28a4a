"""Which engines are gone: the decision whether their runs may be adopted.

Invariant: an engine counts as gone only after its heartbeat was missing during a whole grace period
in which this engine could see storage and renew its own heartbeat. After an outage of storage every
heartbeat has expired; nobody is declared gone before each had the time to renew it.
"""

from __future__ import annotations

from collections.abc import Iterable


class EngineRoll:
    """What this engine knows of the others."""

    def __init__(self, own_id: str, grace_s: float) -> None:
        self._own_id = own_id
        self._grace_s = grace_s
        self._missing_since_s: dict[str, float] = {}
        self._seen: frozenset[str] = frozenset()

    def blind(self) -> None:
        """Storage could not be read, or the own heartbeat not be renewed: begin to count again."""
        self._missing_since_s.clear()

    def look(self, present: Iterable[str]) -> frozenset[str]:
        """Note who is there; returns those that were there at the last look and are not now."""
        seen = frozenset(present)
        vanished = self._seen - seen - {self._own_id}
        self._seen = seen
        for engine in seen:
            self._missing_since_s.pop(engine, None)
        return vanished

    def gone(self, owners: Iterable[str], now_s: float) -> frozenset[str]:
        """Which of these owners of runs are gone for good."""
        found = set()
        for owner in set(owners):
            if owner == self._own_id or owner in self._seen:
                continue
            since_s = self._missing_since_s.setdefault(owner, now_s)
            if now_s - since_s >= self._grace_s:
                found.add(owner)
        return frozenset(found)

    def forget(self, engines: Iterable[str]) -> None:
        """Nothing is left of them."""
        for engine in engines:
            self._missing_since_s.pop(engine, None)

    @property
    def pending(self) -> bool:
        """Somebody is missing and not yet given up: look at the records again."""
        return bool(self._missing_since_s)
