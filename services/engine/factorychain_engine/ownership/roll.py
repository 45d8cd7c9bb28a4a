"""Which engines are gone: the decision whether their runs may be adopted.

Invariant: an engine counts as gone only after its heartbeat was missing at every look during a whole
grace period in which this engine could see storage and renew its own heartbeat; it begins at the
earliest with the look that found that again. After an outage of storage every heartbeat has expired;
nobody is given up before each had the time to renew it.
"""

from __future__ import annotations

from collections.abc import Iterable


class EngineRoll:
    """What this engine knows of the others."""

    def __init__(self, own_id: str, grace_s: float) -> None:
        self._own_id = own_id
        self._grace_s = grace_s
        self._missing_since_s: dict[str, float] = {}
        self._present: frozenset[str] = frozenset()

    @property
    def pending(self) -> bool:
        """Somebody who has runs is missing and not given up yet."""
        return bool(self._missing_since_s)

    def look(self, present: Iterable[str] | None, *, can_renew: bool) -> bool:
        """Note who is there; returns whether somebody was at the last look and is not now.

        `present` is None if storage did not answer, be it while the records were looked through;
        `can_renew`: whether the own heartbeat is there, as far as is known.
        """
        if present is None or not can_renew:
            self._count_again()
        if present is None:
            return False
        now_there = frozenset(present)
        vanished = self._present - now_there - {self._own_id}
        self._present = now_there
        for engine in now_there:
            self._missing_since_s.pop(engine, None)
        return bool(vanished)

    def _count_again(self) -> None:
        """Whoever is missing may be so for the same reason: from the next answer of storage on."""
        for engine in self._missing_since_s:
            self._missing_since_s[engine] = float("inf")

    def gone(self, owners: Iterable[str], now_s: float) -> frozenset[str]:
        """Which of these owners of runs are gone for good."""
        found = set()
        for owner in set(owners) - self._present - {self._own_id}:
            since_s = min(self._missing_since_s.get(owner, now_s), now_s)
            self._missing_since_s[owner] = since_s
            if now_s - since_s >= self._grace_s:
                found.add(owner)
        return frozenset(found)

    def forget(self, still_owning: Iterable[str]) -> None:
        """All records were looked through: those that own nothing any more are nobody's business."""
        for engine in set(self._missing_since_s) - set(still_owning):
            del self._missing_since_s[engine]
