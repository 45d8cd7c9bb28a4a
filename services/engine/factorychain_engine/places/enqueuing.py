"""Puts a start into its user's queue.

Invariant: what the run is to be started with is stored before the user's record names it, so whoever
finds it in the queue can start it; and what is stored of a start that was refused counts for nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from factorychain._core.crash_points import crash_point
from factorychain._core.ids import Principal
from factorychain._core.logging import get_logger
from factorychain._core.stored import NatsUnavailable, WrongLastSequence
from factorychain._core.telemetry import counter
from factorychain.errors import UserQueueLimit
from factorychain.types.v1.run_pb2 import RunState
from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.queueing import QueueFull, as_queued, enqueue
from factorychain_engine.admission.record import ActiveRun, UserRecord
from factorychain_engine.limits import LimitsOf
from factorychain_engine.places.started import Started
from factorychain_engine.records.store import Records
from factorychain_engine.records.stored_run import StoredRun, record_of
from factorychain_engine.records.users_store import UsersStore, Versioned
from factorychain_engine.validation import StartRequest

log = get_logger(__name__)
_enqueued = counter("factorychain.engine.enqueued", "Starts that were queued")

FULL_RETRY_AFTER_S: Final = 3.0


class Enqueuing:
    """Queues starts."""

    def __init__(
        self,
        owner: Callable[[], str],
        users: UsersStore,
        records: Records,
        limits: LimitsOf,
        on_queued: Callable[[StartRequest, float], None],
    ) -> None:
        """`owner`: the engine that is to look after what is queued. `on_queued` hears of each run that was queued, and when."""
        self._owner = owner
        self._users = users
        self._records = records
        self._limits = limits
        self._on_queued = on_queued

    async def enqueue(
        self, start: StartRequest, known: Versioned, free: UserRecord, wanted: ActiveRun
    ) -> Started | None:
        """Queue `wanted`, for which `free` has no place: the user's record `known` without those whose
        runs have ended. None: the record is another by now.

        Raises:
            UserQueueLimit: as many wait as may.
            NatsUnavailable: no answer; with `sent` it may be queued, and is if the record says so.
        """
        queued = as_queued(wanted, secrets.token_hex(8))
        most = self._limits(start.principal, start.plan).queued_runs
        decision = enqueue(free, queued, self._owner(), most)
        if isinstance(decision, QueueFull):
            raise UserQueueLimit(most, retry_after_s=FULL_RETRY_AFTER_S)
        crash_point("engine.queue.keeping")
        await self._records.keep_queued(start.principal, queued.kept, kept_of(wanted, start))
        crash_point("engine.queue.kept")
        if not await self._stored(start.principal, known, decision.record, queued):
            return None
        crash_point("engine.queue.enqueued")
        _enqueued.add(1)
        self._on_queued(start, queued.queued_at_s)
        return Started.of_queued(queued, decision.position, existing=False)

    async def _stored(
        self, principal: Principal, known: Versioned, record: UserRecord, queued: QueuedRun
    ) -> bool:
        try:
            async with self._users.turn(principal):
                await self._users.replace(principal, known, record)
        except WrongLastSequence:
            await self._forget(principal, queued)
            return False
        return True

    async def _forget(self, principal: Principal, queued: QueuedRun) -> None:
        try:
            await self._records.forget_queued(principal, queued.run, queued.kept)
        except NatsUnavailable:
            log.info("what was kept of a start goes by its age", run=queued.run)


def kept_of(wanted: ActiveRun, start: StartRequest) -> StoredRun:
    """What is kept of a start: the record that its run has while it waits."""
    kept = record_of(
        wanted, start.input_json, start.metadata_json, start.resumes, tuple(start.context)
    )
    kept.run.state = RunState.RUN_STATE_QUEUED
    return kept
