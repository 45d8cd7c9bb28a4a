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

_AT_ONCE = 12
"""Points that are armed for one seed, beside half of the rare ones and some of the rarest."""
_RARE = ("engine.queue.", "engine.adopt.", "engine.attempt.", "engine.settle.", "engine.answer.", "engine.value.", "agents.answer.")  # fmt: skip
_RAREST = (
    "engine.place.hand",
    "engine.queue.hand",
    "engine.ticket.served",
    "engine.ticket.removed",
)
"""Passed in a few seeds, one after the other: of each of these one is armed in every seed."""
ELSEWHERE = ("engine.restore.",)
"""Nothing is lost by storage here; what an engine knew that dies at that is lost with it. `tests/faults`
reaches them.
"""

_POINTS = [name for name in CRASH_POINTS if not name.startswith(ELSEWHERE)]

_UNTIL_S = 15.0
"""Long enough that others adopt what a process had that has died."""

Kill = Callable[[str, float], None]


class Crashes:
    """The armed points of one simulation."""

    def __init__(self, loop: SimulatedLoop, random: Random, kill: Kill) -> None:
        """`kill` has a process die, by its name, and come back after some seconds."""
        self.hit: list[str] = []
        self._loop = loop
        self._random = random
        self._kill = kill
        rarest = [name for name in _POINTS if name.startswith(_RAREST)]
        rare = [name for name in _POINTS if name.startswith(_RARE) and name not in rarest]
        others = [name for name in _POINTS if name not in {*rarest, *rare}]
        often = random.sample(others, _AT_ONCE)
        self._armed = dict.fromkeys(random.sample(rare, len(rare) // 2), 1)
        for prefix in _RAREST:
            of_these = [name for name in rarest if name.startswith(prefix)]
            self._armed[random.choice(of_these)] = random.choice((1, 1, 2))
        self._armed.update((name, random.choice((1, 1, 2, 3, 8))) for name in often)
        self._calm_until_s = random.uniform(0.3, 1.0)
        watch(self._passed)

    def _passed(self, name: str) -> None:
        now_s, process = self._loop.now_s, self._loop.current
        if name not in self._armed or not process.alive:
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
