"""Who waits: every change that is made to the queue in a user's record.

Invariants: the queue is bounded; a run stands in it once, or has a place, never both; runs of one
thread start in the order in which they came. One that is marked to end never starts, so whoever ends
it and whoever would start it cannot both succeed: each needs the record to be as it saw it. Whoever
changes the queue looks after it from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from math import inf

from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.record import (
    NOTHING_USED,
    ActiveRun,
    Totals,
    UserRecord,
    release,
    startable,
)


@dataclass(frozen=True, slots=True)
class Queued:
    """There is room in the queue: store `record`."""

    record: UserRecord
    position: int


@dataclass(frozen=True, slots=True)
class QueueFull:
    """As many wait as may."""


def enqueue(
    record: UserRecord, wanted: QueuedRun, owner: str, max_queued: int
) -> Queued | QueueFull:
    """Put a run that `admit` has no place for at the end of the queue."""
    if len(record.queue) >= max_queued:
        return QueueFull()
    changed = replace(record, queue=(*record.queue, wanted), queue_owner=owner)
    return Queued(changed, changed.position(wanted.run))


def promote(
    record: UserRecord, entry: ActiveRun, limit_of: Callable[[QueuedRun], int]
) -> UserRecord | None:
    """Give a run that waits its place, `entry`; None if there is none for it now.

    `limit_of` is that of `startable`, so that both agree about who is next.
    """
    able = startable(record, limit_of)
    if entry.run not in {each.run for each in able}:
        return None
    return replace(
        record,
        active=(*record.active, entry),
        queue=_without(record, entry.run),
        queue_owner=entry.owner,
    )


def give_back(record: UserRecord, entry: ActiveRun, queued: QueuedRun, owner: str) -> UserRecord:
    """Agents refused a run that had been promoted: it waits again, before all others, or is to end if
    somebody wanted that meanwhile.
    """
    found = record.place(entry)
    if found is None:
        return record
    if found.cancel and not queued.ending:
        queued = replace(queued, ending=found.cancel, ending_message="")
    freed = release(record, entry)
    return replace(freed, queue=(queued, *freed.queue), queue_owner=owner)


def mark(
    record: UserRecord, runs: Collection[str], reason: str, owner: str, message: str = ""
) -> UserRecord:
    """Note that these are to end without having started; the first reason stays."""
    queue = tuple(
        replace(each, ending=reason, ending_message=message)
        if each.run in runs and not each.ending
        else each
        for each in record.queue
    )
    return record if queue == record.queue else replace(record, queue=queue, queue_owner=owner)


def drop(record: UserRecord, run: str, used: Totals = NOTHING_USED) -> UserRecord:
    """Forget a marked run whose ending is in the log; nothing changes when it is not there."""
    found = record.waiting(run)
    if found is None or not found.ending:
        return record
    return replace(record, queue=_without(record, run), totals=record.totals.plus(used))


def leave(record: UserRecord, owner: str) -> UserRecord:
    """Look after the queue no more: it is nobody's until an engine adopts it."""
    return replace(record, queue_owner="") if record.queue_owner == owner else record


def overdue(record: UserRecord, now_s: float, max_wait_s: float) -> list[str]:
    """Those that have waited for longer than they may."""
    return [
        each.run
        for each in record.queue
        if not each.ending and now_s - each.queued_at_s >= max_wait_s
    ]


def overdue_at_s(record: UserRecord, max_wait_s: float) -> float:
    """When the first of them has waited for as long as it may; infinity: nobody waits."""
    return (
        min((each.queued_at_s for each in record.queue if not each.ending), default=inf)
        + max_wait_s
    )


def moved(before: UserRecord, after: UserRecord) -> list[str]:
    """Those that wait in another position after a change: their users are told."""
    return [
        each.run
        for each in after.queue
        if not each.ending and before.position(each.run) != after.position(each.run)
    ]


def as_place(queued: QueuedRun) -> ActiveRun:
    """A run that waits as the place it would have: for what speaks of runs by their places."""
    return ActiveRun(
        run=queued.run,
        thread=queued.thread,
        agent=queued.agent,
        request_hash=queued.request_hash,
        owner="",
        admitted_at_s=queued.queued_at_s,
        deadline_s=queued.queued_at_s,
        base=queued.base,
        base_seq=queued.base_seq,
        base_epoch=queued.base_epoch,
        trace=queued.trace,
        replaces=queued.replaces,
        plan=queued.plan,
        has_context=queued.has_context,
        queued_at_s=queued.queued_at_s,
        queued_seq=queued.base_seq,
        queued_epoch=queued.base_epoch,
        kept=queued.kept,
    )


def as_queued(wanted: ActiveRun, kept: str) -> QueuedRun:
    """The place that a start asked for, to be waited for."""
    return QueuedRun(
        run=wanted.run,
        thread=wanted.thread,
        agent=wanted.agent,
        request_hash=wanted.request_hash,
        kept=kept,
        queued_at_s=wanted.admitted_at_s,
        base=wanted.base,
        base_seq=wanted.base_seq,
        base_epoch=wanted.base_epoch,
        trace=wanted.trace,
        replaces=wanted.replaces,
        plan=wanted.plan,
        has_context=wanted.has_context,
    )


def _without(record: UserRecord, run: str) -> tuple[QueuedRun, ...]:
    return tuple(each for each in record.queue if each.run != run)
