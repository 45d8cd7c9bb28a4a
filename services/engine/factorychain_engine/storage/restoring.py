"""Enters again what this engine knows of records that storage has lost.

Invariant: what has its ending in the log gets no place again, and neither has what this engine has
stopped to look after meanwhile. Doing it twice changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from factorychain._core.crash_points import crash_point
from factorychain._core.ids import Principal
from factorychain._core.logging import get_logger
from factorychain._core.stored import NatsUnavailable
from factorychain._core.telemetry import counter
from factorychain_engine.admission.last_known import LastKnown
from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.queueing import as_place
from factorychain_engine.admission.record import ActiveRun, UserRecord
from factorychain_engine.admission.reentry import Reentered, reenter
from factorychain_engine.lifeline import EndReason
from factorychain_engine.queue.queues import Queues
from factorychain_engine.records.outcomes import Outcomes
from factorychain_engine.records.store import Records
from factorychain_engine.records.users_store import UsersStore
from factorychain_engine.runs.bookkeeping import Bookkeeping
from factorychain_engine.runs.supervised_run import SupervisedRun
from factorychain_engine.runs.supervised_runs import SupervisedRuns

log = get_logger(__name__)
_entered = counter("factorychain.engine.entered_again", "Runs whose lost records were made again")


class Restorer:
    """Makes lost records again, as far as this engine knows them."""

    def __init__(
        self,
        *,
        engine_id: str,
        users: UsersStore,
        records: Records,
        runs: SupervisedRuns,
        outcomes: Outcomes,
        queues: Queues,
        books: Bookkeeping,
    ) -> None:
        self._engine_id = engine_id
        self._users = users
        self._records = records
        self._runs = runs
        self._outcomes = outcomes
        self._queues = queues
        self._books = books
        self._last: dict[Principal, LastKnown] = {}

    async def users(self) -> None:
        """Users' records: the places of runs that are looked after here, and the queues.

        Raises:
            NatsUnavailable: storage does not answer; to be called again.
        """
        for principal, known in self._users.forget_all().items():
            before = self._last.get(principal)
            self._last[principal] = known if before is None else before.then(known)
        held = {each.principal for each in self._runs.all()}
        for principal in held | {each for each, last in self._last.items() if self._waiting(last)}:
            try:
                await self._user(principal, self._last.get(principal))
            except NatsUnavailable:
                raise
            except Exception:  # one odd record must not keep all others from starting
                log.exception("what is known of a user's record was not entered again")

    def done(self) -> None:
        """Everybody has entered what there was; nothing is remembered of the lost records any more."""
        self._last.clear()

    def nothing_lost(self) -> None:
        """A look has found that users' records are whole."""
        self._users.confirmed()

    def records(self) -> None:
        """The records of runs and threads that are under way here; they follow soon."""
        self._records.forget_threads()
        for run in self._runs.all():
            self._books.adopted(run)

    async def _user(self, principal: Principal, last: LastKnown | None) -> None:
        waiting = self._waiting(last)
        places = [as_place(each) for each in waiting]
        places += [each.place for each in self._held(principal)]
        ended = await self._ended(principal, places)
        made: list[Reentered] = []

        def entered(record: UserRecord) -> UserRecord:
            held = [each.place for each in self._held(principal) if each.entry.run not in ended]
            left = [each for each in waiting if each.run not in ended]
            made.append(reenter(record, last, held, left, self._engine_id))
            return made[-1].record

        crash_point("engine.restore.entering")
        record = await self._users.change(principal, entered)
        crash_point("engine.restore.entered")
        self._tell(principal, record, made)

    def _tell(self, principal: Principal, record: UserRecord, made: list[Reentered]) -> None:
        """`made`: by each record that was tried; the last is the one that is stored."""
        for run in made[-1].displaced:
            displaced = self._runs.find(principal, run)
            if displaced is not None:
                log.error("a run whose record was lost has no thread any more", run=run)
                displaced.cancel(EndReason.INTERRUPTED)
        active, queued = made[-1].active, made[-1].queued
        if active or queued:
            _entered.add(len(active) + len(queued))
            log.warning("runs are in their user's record again", active=active, queued=queued)
        if queued:
            self._queues.adopted(principal, record)

    def _held(self, principal: Principal) -> list[SupervisedRun]:
        return [each for each in self._runs.all() if each.principal == principal and not each.over]

    def _waiting(self, last: LastKnown | None) -> tuple[QueuedRun, ...]:
        return last.waiting_with(self._engine_id) if last is not None else ()

    async def _ended(self, principal: Principal, places: Sequence[ActiveRun]) -> set[str]:
        outcomes = await asyncio.gather(
            *(self._outcomes.of_place(principal, each) for each in places)
        )
        return {place.run for place, run in zip(places, outcomes, strict=True) if run is not None}
