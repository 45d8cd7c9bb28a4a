"""What is done to the parts of a chain, in which order, and for how long: decided by a seed alone.

Invariant: every fault has had its turn before one has a second, and the kinds take turns, so that a short
run has seen them all; a pair never hits one layer twice, whether the replica itself or what leads to it, so
that one of several is left that can be reached, and of a cluster all nodes but one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.chaos.forms import Form, has_replicas, layer_hit, layer_of

KILL, RESTART, FREEZE, CUT, SILENCE, FULL = (
    "kill",
    "restart",
    "freeze",
    "cut",
    "silence",
    "full disk",
)
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


def all_faults(
    form: Form, kinds: Sequence[str], parts: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Every kind at every part that it can be done to; a part may be a whole layer, `parts` empty: all."""
    at_processes = [(kind, each) for kind in (KILL, RESTART, FREEZE) for each in form.processes]
    at_links = [(kind, each) for kind in (CUT, SILENCE) for each in form.links]
    every = [*at_processes, *at_links, *((FULL, each) for each in form.stores)]
    return [
        (kind, where)
        for kind, where in every
        if kind in kinds and (not parts or where in parts or layer_of(where) in parts)
    ]


def in_turn(
    seed: str, every: Sequence[tuple[str, str]], shortest_s: float, longest_s: float
) -> Iterator[tuple[Fault, ...]]:
    """For ever: one fault of `every` (kind and part), or two at once."""
    chance = random.Random(f"{seed} faults")
    deck: list[tuple[str, str]] = []

    def draw() -> Fault:
        if not deck:
            deck.extend(_shuffled(every, chance))
        kind, where = deck.pop()
        timed = kind not in (KILL, RESTART)
        return Fault(kind, where, chance.uniform(shortest_s, longest_s) if timed else 0.0)

    while True:
        faults = [draw()]
        if chance.random() < _PAIRED:
            other = draw()
            if _leave_one(faults[0].where, other.where):
                faults.append(other)
            else:
                deck.append((other.kind, other.where))
        yield tuple(faults)


def _leave_one(one: str, other: str) -> bool:
    """Whether work is still done if both are broken at once."""
    if has_replicas(one):
        return layer_hit(one) != layer_hit(other)
    return one != other  # there is but one process: whatever breaks leaves none


def _shuffled(every: Sequence[tuple[str, str]], chance: random.Random) -> list[tuple[str, str]]:
    """To be taken from the end: one of each kind, then again one of each that is left."""
    piles = {kind: [each for each in every if each[0] == kind] for kind in KINDS}
    for pile in piles.values():
        chance.shuffle(pile)
    taken: list[tuple[str, str]] = []
    while left := [pile for pile in piles.values() if pile]:
        chance.shuffle(left)
        taken.extend(pile.pop() for pile in left)
    return taken[::-1]
