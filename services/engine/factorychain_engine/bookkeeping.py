"""Writes what is recorded of a run beside its admission, without anybody waiting for it.

Invariant: nothing that counts depends on these writes. The place and the request's hash stand in the
user's record from the first moment; a record that was lost with its engine is made again from the
log. That a known thread is active again is noted a moment later, or with the run's end if that comes
first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from factorychain._core.component import TaskSet
from factorychain._core.logging import get_logger
from factorychain._core.stored import NatsUnavailable
from factorychain.types.v1.run_pb2 import Run
from factorychain_engine.admission import accepted
from factorychain_engine.outcomes import Outcomes
from factorychain_engine.records import Records
from factorychain_engine.retry import retries
from factorychain_engine.runs import SupervisedRun
from factorychain_engine.stored_run import StoredRun
from factorychain_engine.users_store import UsersStore
from factorychain_engine.validation import title_of_input

log = get_logger(__name__)

GIVE_UP_AFTER_S = 60.0
TOUCH_AFTER_S = 1.0


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
        self._touches: dict[SupervisedRun, asyncio.TimerHandle] = {}

    @property
    def healthy(self) -> bool:
        return self._tasks.healthy

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        for touch in self._touches.values():
            touch.cancel()
        self._touches.clear()
        await self._tasks.close()

    def started(self, run: SupervisedRun, known: StoredRun, title: str, is_accepted: bool) -> None:
        """Agents have the run."""
        self._write(run, lambda: self._records.create_run(run.principal, known))
        if self._records.has_touched(run.principal, run.entry.thread):
            loop = asyncio.get_running_loop()
            self._touches[run] = loop.call_later(TOUCH_AFTER_S, self._touch_begun, run, title)
        else:
            self._touch_begun(run, title)
        if is_accepted:
            self._write(run, lambda: self._note_agents(run))

    def adopted(self, run: SupervisedRun) -> None:
        """The run was another engine's, which may have died before it wrote anything."""
        self._write(run, lambda: self._restore(run))

    def ended(self, run: SupervisedRun, ended: Run) -> None:
        """The run has ended, and its record says so."""
        touch = self._touches.pop(run, None)
        if touch is not None:
            touch.cancel()
        at_s = ended.ended_at.ToNanoseconds() / 1e9 or self._clock()
        self._write(run, lambda: self._touch(run, "", at_s))

    def _touch_begun(self, run: SupervisedRun, title: str) -> None:
        self._touches.pop(run, None)
        self._write(run, lambda: self._touch(run, title, run.entry.admitted_at_s))

    def _write(self, run: SupervisedRun, write: Callable[[], Awaitable[None]]) -> None:
        self._task = self._tasks.spawn(self._written(run, write), run.entry.run)

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

    async def _touch(self, run: SupervisedRun, title: str, at_s: float) -> None:
        await self._records.touch_thread(run.principal, run.entry.thread, title, at_s)

    async def _note_agents(self, run: SupervisedRun) -> None:
        await self._users.change(
            run.principal,
            lambda record: accepted(record, run.entry.run, run.agents_address, run.agents_boot),
        )

    async def _restore(self, run: SupervisedRun) -> None:
        known = await self._outcomes.restored(run.principal, run.entry)
        await self._records.create_run(run.principal, known)
        await self._touch(run, title_of_input(known.run.input_json), run.entry.admitted_at_s)
