"""What is done to the parts of a chain, in which order, and for how long: decided by a seed alone.

Invariant: every fault has had its turn before one has a second; a pair never breaks one part twice.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.chaos.links import LINKS

PROCESSES: Final = ("engine", "agents", "emitter", "bridge", "nats")
KILL, RESTART, FREEZE, CUT, SILENCE, FULL = (
    "kill",
    "restart",
    "freeze",
    "cut",
    "silence",
    "full disk",
)
PARTS: Final = (*PROCESSES, *(each.name for each in LINKS))
KINDS: Final = (KILL, RESTART, FREEZE, CUT, SILENCE, FULL)
_PAIRED: Final = 0.25


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is done to one part."""

    kind: str
    where: str
    """A process, or the name of a link."""
    lasts_s: float = 0.0
    """For how long; killing and restarting take as long as they take."""

    def __str__(self) -> str:
        return f"{self.kind} {self.where}" + (f" {self.lasts_s:.1f} s" if self.lasts_s else "")


def all_faults(kinds: Sequence[str], parts: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Every kind at every part that it can be done to; `parts` empty: all."""
    at_processes = [(kind, each) for kind in (KILL, RESTART, FREEZE) for each in PROCESSES]
    at_links = [(kind, each.name) for kind in (CUT, SILENCE) for each in LINKS]
    every = [*at_processes, *at_links, (FULL, "nats")]
    return [each for each in every if each[0] in kinds and each[1] in (parts or PARTS)]


def in_turn(
    seed: str, every: Sequence[tuple[str, str]], shortest_s: float, longest_s: float
) -> Iterator[tuple[Fault, ...]]:
    """For ever: one fault of `every` (kind and part), or two at once."""
    chance = random.Random(f"{seed} faults")
    deck: list[tuple[str, str]] = []

    def draw() -> Fault:
        if not deck:
            deck.extend(every)
            chance.shuffle(deck)
        kind, where = deck.pop()
        timed = kind not in (KILL, RESTART)
        return Fault(kind, where, chance.uniform(shortest_s, longest_s) if timed else 0.0)

    while True:
        faults = [draw()]
        if chance.random() < _PAIRED:
            other = draw()
            if other.where != faults[0].where:
                faults.append(other)
            else:
                deck.append((other.kind, other.where))
        yield tuple(faults)
