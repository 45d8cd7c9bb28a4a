"""A user's record after storage has lost it: what is known of it is entered again.

Invariant: nothing that is stored by now is taken away. A run stands in the record once, as active if
anybody says so; of two runs of one thread the one that is stored has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from factorychain_engine.admission.last_known import LastKnown
from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.record import ActiveRun, UserRecord


@dataclass(frozen=True, slots=True)
class Reentered:
    """The record to store, and what became of what was known."""

    record: UserRecord
    active: tuple[str, ...]
    """The runs that have their places again."""
    queued: tuple[str, ...]
    """Those that wait again."""
    displaced: tuple[str, ...]
    """Active ones in whose threads others have begun meanwhile: they have to end."""


def reenter(
    record: UserRecord,
    last: LastKnown | None,
    places: Iterable[ActiveRun],
    waiting: Iterable[QueuedRun],
    owner: str,
) -> Reentered:
    """Enter again the `places` and those who are `waiting` that `owner` looks after, and what was counted as
    far as it was known `last`. They may be more than the limit, if others were admitted
    meanwhile: then nobody is until some have ended.
    """
    active, displaced = list(record.active), []
    threads = {each.thread for each in active}
    cancelled = last.cancels if last is not None else {}
    for each in places:
        if record.find(each.run):
            continue
        if each.thread in threads:
            displaced.append(each.run)
            continue
        threads.add(each.thread)
        cancel = each.cancel or cancelled.get(each.run, "")
        active.append(replace(each, owner=owner, cancel=cancel))
    there = {each.run for each in active} | {each.run for each in record.queue}
    again = [each for each in waiting if each.run not in there]
    begun = {each.run for each in active}
    queue = [each for each in record.queue if each.run not in begun] + again
    counted = last is not None and last.totals.runs > record.totals.runs
    after = replace(
        record,
        active=tuple(active),
        queue=tuple(sorted(queue, key=lambda each: each.queued_at_s)),
        queue_owner=owner if again else record.queue_owner,
        totals=last.totals if last is not None and counted else record.totals,
    )
    return Reentered(
        after,
        tuple(each.run for each in active[len(record.active) :]),
        tuple(each.run for each in again),
        tuple(displaced),
    )
