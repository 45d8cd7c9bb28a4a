"""What this engine knew of a user's record before storage lost it.

Invariant: nobody who was known to wait is left out, unless it was known to have begun; of two things
that were known of one run the later counts. What is known may be outdated: whoever enters it again
looks first who has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.record import Totals, UserRecord


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run that waited, and the engine that looked after its queue."""

    queued: QueuedRun
    owner: str


@dataclass(frozen=True, slots=True)
class LastKnown:
    """Of one user."""

    waiting: Mapping[str, Waiting]
    cancels: Mapping[str, str]
    """By active run why it is to end; empty: it is not."""
    totals: Totals

    @classmethod
    def of(cls, record: UserRecord) -> LastKnown:
        """What a record says."""
        return cls(
            {each.run: Waiting(each, record.queue_owner) for each in record.queue},
            {each.run: each.cancel for each in record.active},
            record.totals,
        )

    def then(self, later: LastKnown) -> LastKnown:
        """With what was known later, be it of the same record or of one that began anew."""
        begun = later.cancels.keys()
        waited = {run: each for run, each in self.waiting.items() if run not in begun}
        cancels = {run: why or self.cancels.get(run, "") for run, why in later.cancels.items()}
        counted_more = self.totals.runs > later.totals.runs
        return LastKnown(
            {**waited, **later.waiting},
            {**self.cancels, **cancels},
            self.totals if counted_more else later.totals,
        )

    def waiting_with(self, owner: str) -> tuple[QueuedRun, ...]:
        """Those that waited in queues that `owner` looked after."""
        return tuple(each.queued for each in self.waiting.values() if each.owner == owner)
