"""How many more runs this engine takes.

Invariant: a run counts from directly before its place is stored, so that those which begin at the same
moment do not exceed the limit together. Runs that are adopted count, and none of them is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from factorychain.errors import Capacity
from factorychain_engine.retry import spread
from factorychain_engine.runs.supervised_runs import SupervisedRuns

RETRY_AFTER_S: Final = 2.0


class OwnRoom:
    """Room in this engine, beside that at agents."""

    def __init__(self, most: int, runs: SupervisedRuns) -> None:
        """`most`: how many runs it may have, 0: no limit. `runs`: those that it has."""
        self._most = most
        self._runs = runs
        self._taking = 0

    def left(self) -> int | None:
        """Places that are free; None: there is no limit."""
        if not self._most:
            return None
        return max(0, self._most - len(self._runs) - self._taking)

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Meanwhile a place is stored; its run is to be among the engine's before anybody else has a turn.

        Raises:
            Capacity: there is no room any more, and nothing is to be stored.
        """
        if self.left() == 0:
            raise no_room()
        self._taking += 1
        try:
            yield
        finally:
            self._taking -= 1


def no_room() -> Capacity:
    """A refusal by an engine that does not know when there will be room."""
    return Capacity(retry_after_s=spread(RETRY_AFTER_S))
