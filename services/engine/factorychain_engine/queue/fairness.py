"""In which order those get room who wait for it, when the whole system is full. Pure.

Invariant: tenants take turns, and in a tenant its users; whoever got room goes behind all others of the
tenant, and the tenant behind all other tenants. So nobody's first run waits for more than one run of each
other tenant and of each other user of its own, however many those have waiting.

A ticket is a number of one sequence that all engines share (a revision of their bucket): the smaller was
drawn before. The order follows from the tickets alone, so every engine that sees the same ones finds the
same order, and none has to remember whose turn it was.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import zip_longest

from factorychain._core.ids import Principal


@dataclass(frozen=True, slots=True)
class Waiting:
    """A user who waits for room."""

    principal: Principal
    engine: str
    """Who looks after the user's queue."""
    ticket: int
    """Drawn when the user began to wait, or got room last."""


def fair_order(
    waiting: Collection[Waiting], tenants_served: Mapping[str, int]
) -> tuple[Waiting, ...]:
    """Whose turn it is first. `tenants_served`: the ticket that a tenant drew when one of its users got
    room last; one that is not in it counts from when the first of its users began to wait.
    """
    lines: dict[str, list[Waiting]] = {}
    for each in sorted(waiting, key=lambda each: each.ticket):
        lines.setdefault(each.principal.tenant, []).append(each)
    tenants = sorted(lines, key=lambda tenant: tenants_served.get(tenant, lines[tenant][0].ticket))
    rounds = zip_longest(*(lines[tenant] for tenant in tenants))
    return tuple(each for round_ in rounds for each in round_ if each is not None)


class Patience:
    """Whom not to wait for: somebody whose turn it has been for long, and whose engine does nothing."""

    def __init__(self, passed_over_after_s: float) -> None:
        self._after_s = passed_over_after_s
        self._since_s: dict[Waiting, float] = {}

    def due(self, order: Collection[Waiting], room: int, now_s: float) -> tuple[Waiting, ...]:
        """Those who may begin now: as many as there is room for, and who is passed over beside them."""
        found: list[Waiting] = []
        since_s: dict[Waiting, float] = {}
        for each in order:
            if room <= 0:
                break
            since_s[each] = self._since_s.get(each, now_s)
            found.append(each)
            if now_s - since_s[each] < self._after_s:
                room -= 1
        self._since_s = since_s
        return tuple(found)
