"""Writes what is recorded of a run beside its admission, without anybody waiting for it.

Invariant: nothing that counts depends on these writes. The place and the request's hash stand in the
user's record from the first moment; a record that was lost with its engine is made again from the
log.

A thread that is new here is written at once. What else a start writes waits until its first event is
out of the way, and what the run's end makes needless by then is not written at all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from factorychain._core.component import TaskSet
from factorychain._core.crash_points import crash_point
from factorychain._core.logging import get_logger
from factorychain._core.stored import NatsUnavailable
from factorychain.types.v1.run_pb2 import Run
from factorychain_engine.admission.record import accepted
from factorychain_engine.records.endings import ended_at_s
from factorychain_engine.records.outcomes import Outcomes
from factorychain_engine.records.store import Records
from factorychain_engine.records.stored_run import StoredRun
from factorychain_engine.records.users_store import UsersStore
from factorychain_engine.retry import retries
from factorychain_engine.runs.supervised_run import SupervisedRun
from factorychain_engine.validation import title_of_input

log = get_logger(__name__)

GIVE_UP_AFTER_S = 60.0
BEGIN_AFTER_S = 0.02
TOUCH_AFTER_S = 1.0
"""After so long it is noted that a known thread is active again; its run's end may be sooner."""
LAST_WRITES_S = 2.0


@dataclass(frozen=True, slots=True)
class _Beginning:
    """What is to be written of a run that agents have."""

    known: StoredRun
    is_accepted: bool


class Bookkeeping:
    """Records of runs and threads; a component."""

    name = "bookkeeping"

    def __init__(
        self,
        users: UsersStore,
        records: Records,
        outcomes: Outcomes,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._users = users
        self._records = records
        self._outcomes = outcomes
        self._clock = clock
        self._tasks = TaskSet(self.name)
        self._beginnings: dict[SupervisedRun, _Beginning] = {}
        self._timers: dict[SupervisedRun, asyncio.TimerHandle] = {}

    @property
    def healthy(self) -> bool:
        return self._tasks.healthy

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Whoever adopts the runs that go on finds where they are."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for run in list(self._beginnings):
            self._write_begun(run)
        await self._tasks.finish(LAST_WRITES_S)
        await self._tasks.close()

    def started(self, run: SupervisedRun, known: StoredRun, title: str, is_accepted: bool) -> None:
        """Agents have the run."""
        self._records.expect_run(run.principal, known)
        self._beginnings[run] = _Beginning(known, is_accepted)
        self._after(BEGIN_AFTER_S, self._begin, run)
        if not self._records.has_touched(run.principal, run.entry.thread):
            self._touch(run, title, run.entry.admitted_at_s)

    def _begin(self, run: SupervisedRun) -> None:
        self._write_begun(run)
        self._after(TOUCH_AFTER_S, self._touch_begun, run)

    def _write_begun(self, run: SupervisedRun) -> None:
        begun = self._beginnings.pop(run)
        self._write(run, lambda: self._records.create_run(run.principal, begun.known))
        if begun.is_accepted:
            self._write(run, lambda: self._note_agents(run))

    def _touch_begun(self, run: SupervisedRun) -> None:
        self._timers.pop(run, None)
        self._touch(run, "", run.entry.admitted_at_s)

    def _after(
        self, wait_s: float, then: Callable[[SupervisedRun], None], run: SupervisedRun
    ) -> None:
        self._timers[run] = asyncio.get_running_loop().call_later(wait_s, then, run)

    def adopted(self, run: SupervisedRun) -> None:
        """The run was another engine's, which may have died before it wrote anything."""
        self._write(run, lambda: self._restore(run))

    def again(self, run: SupervisedRun) -> None:
        """Agents have a later attempt of the run."""
        entry, note = run.entry, self._records.note_attempt
        self._write(run, lambda: self._note_agents(run))
        self._write(run, lambda: note(run.principal, entry.thread, entry.run, entry.attempt))

    def ended(self, run: SupervisedRun, ended: Run) -> None:
        """The run has ended, and its record says so."""
        timer = self._timers.pop(run, None)
        if timer is not None:
            timer.cancel()
        self._beginnings.pop(run, None)
        self._touch(run, "", ended_at_s(ended, self._clock()))

    def _touch(self, run: SupervisedRun, title: str, at_s: float) -> None:
        touch = self._records.touch_thread
        self._write(run, lambda: touch(run.principal, run.entry.thread, title, at_s))

    def _write(self, run: SupervisedRun, write: Callable[[], Awaitable[None]]) -> None:
        _ = self._tasks.spawn(self._written(run, write), run.entry.run)

    async def _written(self, run: SupervisedRun, write: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(GIVE_UP_AFTER_S):
                async for _ in retries():
                    try:
                        await write()
                    except NatsUnavailable:
                        continue
                    return
        except TimeoutError:
            log.error("a record could not be written", run=run.entry.run)

    async def _note_agents(self, run: SupervisedRun) -> None:
        record = await self._users.change(
            run.principal,
            lambda record: accepted(record, run.entry, run.agents_address, run.agents_boot),
        )
        run.look_at(record)  # it may have been cancelled before anybody knew its agents
        crash_point("engine.agents.noted")

    async def _restore(self, run: SupervisedRun) -> None:
        known = await self._outcomes.restored(run.principal, run.entry)
        await self._records.create_run(run.principal, known)
        title = title_of_input(known.run.input_json)
        await self._records.touch_thread(
            run.principal, run.entry.thread, title, run.entry.admitted_at_s
        )
