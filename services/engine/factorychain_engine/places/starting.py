"""What one start has learnt while it tries to get a place."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from factorychain.types.v1.run_pb2 import AgentInfo
from factorychain_engine.admission.record import (
    ActiveRun,
    Behind,
    Busy,
    Decision,
    Full,
    Totals,
    UserRecord,
    release,
)
from factorychain_engine.records.users_store import Versioned
from factorychain_engine.validation import OnBusy, StartRequest

ACCEPT_LOOKS: Final = 40
ACCEPT_LOOK_S: Final = 0.05
"""A repeated start looks so often, in this interval, whether agents have accepted the first."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the user's record."""

    known: Versioned
    wanted: ActiveRun
    """The place that the start would have."""
    decision: Decision


@dataclass(frozen=True, slots=True)
class Ahead:
    """What was learnt before the user's turn."""

    agent: AgentInfo
    room: bool
    """Whether agents can be asked to take the run."""
    is_there: bool
    """Whether the run was in the record then."""


class Starting:
    """One start, from its first look at the user's record to its place, or its refusal."""

    def __init__(self, until_s: float) -> None:
        self.until_s = until_s
        """Until when it waits for a run to end that it interrupts."""
        self.tried: list[ActiveRun] = []
        """What it may have stored as active."""
        self.ended: list[tuple[ActiveRun, Totals]] = []
        """Holders whose endings are in the log, with what they used."""
        self.interrupted = False
        """Whether it has ended others for itself."""
        self._waits = 0

    def without_ended(self, record: UserRecord) -> UserRecord:
        """The record with the places free that nobody needs any more."""
        for entry, used in self.ended:
            record = release(record, entry, used)
        return record

    def may_wait_for_place(self, start: StartRequest) -> bool:
        """Whether the start waits if there is no place for it. Also one that has ended others for itself: of
        the places that became free, others may have taken one who waited longer.
        """
        return self.interrupted or start.on_busy is OnBusy.ENQUEUE

    async def may_wait(self) -> bool:
        """Pause a little, a few times; False when that was enough."""
        self._waits += 1
        if self._waits > ACCEPT_LOOKS:
            return False
        await asyncio.sleep(ACCEPT_LOOK_S)
        return True


def holders_of(decision: Decision) -> tuple[ActiveRun, ...]:
    """The runs whose places are in the way."""
    if isinstance(decision, Busy):
        return (decision.holder,)
    return decision.holders if isinstance(decision, Full) else ()


def in_the_way(decision: Decision) -> str:
    """The run because of which the thread is busy."""
    if isinstance(decision, Behind):
        return decision.waiting[0].run
    return next((each.run for each in holders_of(decision)), "")


def retry_after_s(holders: Iterable[ActiveRun], now_s: float) -> float:
    """A guess: runs that are old end soon; at least a second, at most until the first deadline."""
    first_deadline_s = min((each.deadline_s for each in holders), default=now_s)
    return round(min(max(1.0, first_deadline_s - now_s), 3.0), 1)
