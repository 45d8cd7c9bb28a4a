"""Which runs this engine has in its hands.

Invariant: between the moment a place may be held for a run and the moment it is freed, the run is
starting or supervised here, so that the clean-up takes none of them for forgotten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from factorychain._core.ids import Principal
from factorychain_engine.admission.record import UserRecord
from factorychain_engine.runs.supervised_run import SupervisedRun


class SupervisedRuns:
    """The runs that this engine looks after now."""

    def __init__(self) -> None:
        self._runs: dict[str, SupervisedRun] = {}
        self._starting: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._runs)

    @contextmanager
    def starting(self, run: str) -> Iterator[None]:
        """Meanwhile a start may hold a place for the run that nobody looks after yet."""
        self._starting[run] += 1
        try:
            yield
        finally:
            self._starting[run] -= 1
            if not self._starting[run]:
                del self._starting[run]

    def is_starting(self, run: str) -> bool:
        return run in self._starting

    def add(self, run: SupervisedRun) -> None:
        self._runs[run.entry.run] = run

    def remove(self, run: SupervisedRun) -> None:
        if self._runs.get(run.entry.run) is run:
            del self._runs[run.entry.run]

    def find(self, principal: Principal, run: str) -> SupervisedRun | None:
        """The principal's run; None if it is another engine's, or another principal's."""
        found = self._runs.get(run)
        return found if found is not None and found.principal == principal else None

    def look_at(self, principal: Principal, record: UserRecord) -> None:
        """A user's record was read: runs may be to end for which another engine was asked."""
        for each in record.active:
            run = self.find(principal, each.run) if each.cancel else None
            if run is not None:
                run.look_at(record)

    def all(self) -> list[SupervisedRun]:
        """All of them, of all users."""
        return list(self._runs.values())

    def tick(self) -> None:
        """Look after the limits of all of them."""
        for run in list(self._runs.values()):
            run.tick()
