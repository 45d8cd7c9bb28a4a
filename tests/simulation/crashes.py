"""Processes that die at crash points: at each that is listed, while runs are under way.

Invariant: a seed decides which points are armed and at which pass of each a process dies; between two
deaths the chain has a moment in which it gets on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

from factorychain._core.crash_points import CRASH_POINTS, watch
from tests.simulation.loop import SimulatedLoop

_FIRST = 4
"""Of the points that are passed in few seeds, so many are armed in each, in turn: processes die there at
the first pass, and in half of the seeds nowhere else before `_OTHERS_FROM_S`."""
_SELDOM = (
    "engine.place.hand", "engine.queue.hand", "engine.queue.refus", "engine.ticket.", "engine.answer.",
    "engine.attempt.", "engine.value.remov", "engine.cancel.", "bridge.thread.joining", "engine.agents.noted",
)  # fmt: skip
_OTHERS = 10
"""So many of the others are armed, by chance."""
_OTHERS_FROM_S = 4.0
ELSEWHERE = ("engine.restore.",)
"""Nothing is lost by storage here; what an engine knew that dies at that is lost with it. `tests/faults`
reaches them.
"""
_UNTIL_S = 15.0
"""Long enough that others adopt what a process had that has died."""

_POINTS = [name for name in CRASH_POINTS if not name.startswith(ELSEWHERE)]
_FEW = [name for name in _POINTS if name.startswith(_SELDOM)]

Kill = Callable[[str, float], None]


def first_of(turn: int) -> set[str]:
    """The points that are passed in few seeds and armed in this."""
    # Far from each other in the list: who dies at one of two that follow does not pass the other.
    each = len(_FEW) // _FIRST
    return {_FEW[(turn + each * of) % len(_FEW)] for of in range(_FIRST)}


class Crashes:
    """The armed points of one simulation."""

    def __init__(self, loop: SimulatedLoop, random: Random, turn: int, kill: Kill) -> None:
        """`kill` has a process die, by its name, and come back after some seconds. `turn` counts seeds."""
        self.hit: list[str] = []
        self._loop = loop
        self._random = random
        self._kill = kill
        self._first = first_of(turn)
        chosen = random.sample([name for name in _POINTS if name not in _FEW], _OTHERS)
        self._armed = {name: random.choice((1, 1, 2, 3, 8)) for name in chosen}
        self._armed.update(dict.fromkeys(self._first, 1))
        self._others_from_s = random.choice((0.0, _OTHERS_FROM_S))
        self._calm_until_s = random.uniform(0.3, 1.0)
        watch(self._passed)

    def _passed(self, name: str) -> None:
        now_s, process = self._loop.now_s, self._loop.current
        if name not in self._armed or not process.alive:
            return
        if now_s < self._others_from_s and name not in self._first:
            return
        if not self._calm_until_s <= now_s < _UNTIL_S:
            return
        self._armed[name] -= 1
        if self._armed[name] > 0:
            return
        del self._armed[name]
        self.hit.append(name)
        back_s = self._random.choice((0.05, 0.3, 2.0))
        self._calm_until_s = now_s + self._random.choice((0.1, 0.3, 0.8))
        self._kill(process.name, back_s)


def never_hit(hits: Counter[str], times: int) -> list[str]:
    """The points at which fewer processes have died than that."""
    return sorted(name for name in _POINTS if hits[name] < times)
