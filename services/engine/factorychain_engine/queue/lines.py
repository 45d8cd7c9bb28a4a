"""Which users' queues this engine looks after, and which of them it is time to look at.

Invariant: whoever may have waited for too long is looked at in the next pass; all others again and again, a
few in each pass, so that a word that was lost delays nobody for ever and many who wait cost little.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import Final

from factorychain._core.ids import Principal

LOOKS_A_PASS: Final = 50
PASSES_FOR_ALL: Final = 12
"""After so many passes all have been looked at."""

_NEVER_S: Final = float("inf")


class Line:
    """One user's queue."""

    def __init__(self) -> None:
        self.again = False
        """It is to be looked at."""
        self.overdue_at_s = _NEVER_S
        """When the first of those who wait has waited for too long."""
        self.task: asyncio.Task[None] | None = None


class Lines:
    """All of them."""

    def __init__(self) -> None:
        self._lines: OrderedDict[Principal, Line] = OrderedDict()

    def __contains__(self, principal: Principal) -> bool:
        return principal in self._lines

    def __iter__(self) -> Iterator[Principal]:
        return iter(self._lines)

    def of(self, principal: Principal) -> Line:
        """The user's; from now on there is one."""
        return self._lines.setdefault(principal, Line())

    def forget(self, principal: Principal) -> None:
        """Another engine looks after it, or nobody waits."""
        del self._lines[principal]

    def due(self, now_s: float) -> list[Principal]:
        """Those to look at in this pass."""
        found = [each for each, line in self._lines.items() if line.overdue_at_s <= now_s]
        share = -(-len(self._lines) // PASSES_FOR_ALL)
        for each in list(islice(self._lines, max(LOOKS_A_PASS, share))):
            self._lines.move_to_end(each)
            found.append(each)
        return list(dict.fromkeys(found))
