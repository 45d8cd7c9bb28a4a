"""What was away for how long: processes that died, stopped or stood still, and ways on which nothing passed.

Invariant: it knows what was done to the chain, never what a service thinks of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf


@dataclass
class Absence:
    """Of one process, or of the way between two."""

    names: frozenset[str]
    layers: frozenset[str]
    from_s: float
    to_s: float
    dead: bool = False
    """Whether it forgets what it had."""

    def overlap_s(self, from_s: float, to_s: float) -> float:
        """How much of that time it took; negative if it was at another."""
        return min(self.to_s, to_s) - max(self.from_s, from_s)


class Absences:
    """Those of one simulation."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._all: list[Absence] = []
        self._dead: dict[str, Absence] = {}

    # --- what goes wrong --------------------------------------------------------------------

    def away(self, *names: str, for_s: float) -> None:
        """A process stands still; or nothing passes between two, or in no time what was on its way is lost."""
        self._add(names, for_s)

    def dies(self, name: str) -> None:
        """A process dies, or is told to stop."""
        if name not in self._dead:
            self._dead[name] = self._add((name,), inf)
            self._dead[name].dead = True

    def is_back(self, name: str) -> None:
        """It has started again."""
        if name in self._dead:
            self._dead.pop(name).to_s = self._now_s()

    def _add(self, names: Iterable[str], for_s: float) -> Absence:
        now_s, names = self._now_s(), frozenset(names)
        layers = frozenset(each.partition("-")[0] for each in names)
        absence = Absence(names, layers, now_s, now_s + for_s)
        self._all.append(absence)
        return absence

    # --- what was away ----------------------------------------------------------------------

    def between(self, from_s: float, to_s: float) -> list[Absence]:
        """What was away at a moment of that time."""
        return [each for each in self._all if each.overlap_s(from_s, to_s) >= 0]

    def paused_s(self, name: str, from_s: float, to_s: float) -> float:
        """For how much of that time a process stood still, at most."""
        own = (each for each in self._all if each.names == {name} and not each.dead)
        return sum(max(0.0, each.overlap_s(from_s, to_s)) for each in own)


def lasted(wanted_s: float, at_s: float, absences: Iterable[Absence], late_s: float) -> bool:
    """Whether something was away for so long at a stretch until `at_s`, if others notice `late_s` later that
    it is back.
    """
    from_s, to_s = -inf, -inf
    for each in sorted(absences, key=lambda each: each.from_s):
        if each.to_s == each.from_s:
            continue  # a connection that broke and may be made again at once
        if each.from_s > to_s:
            from_s = each.from_s
        to_s = max(to_s, min(each.to_s + late_s, at_s))
        if to_s - from_s >= wanted_s:
            return True
    return False
