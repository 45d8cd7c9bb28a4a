"""Ends runs that are marked to end without having started, and takes them out of their queues.

Invariant: a run leaves its queue when its ending is in the log and in its record, whoever marked it; what
is done here twice, or by two engines, leaves one ending and is counted once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from factorychain._core.component import TaskSet
from factorychain._core.crash_points import crash_point
from factorychain._core.ids import Principal
from factorychain._core.logging import get_logger
from factorychain._core.stored import NatsUnavailable
from factorychain.errors import ChainDegraded
from factorychain.types.v1.run_pb2 import Run
from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.queueing import as_place, drop
from factorychain_engine.admission.record import UserRecord
from factorychain_engine.records.endings import ended_at_s, used_by
from factorychain_engine.records.store import Records
from factorychain_engine.records.users_store import UsersStore
from factorychain_engine.retry import retries
from factorychain_engine.runs.settling import Settler

log = get_logger(__name__)


class QueueEndings:
    """Ends those that are marked."""

    def __init__(
        self,
        users: UsersStore,
        records: Records,
        settler: Settler,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._users = users
        self._records = records
        self._settler = settler
        self._clock = clock
        self._of_runs: dict[str, asyncio.Task[None]] = {}
        self._tasks = TaskSet("endings of runs that waited")
        self._stopping = False

    @property
    def healthy(self) -> bool:
        return self._tasks.healthy

    async def stop(self) -> None:
        """Who is left is ended by whoever adopts the queue."""
        self._stopping = True
        await self._tasks.close()

    def all_of(self, principal: Principal, record: UserRecord) -> None:
        """End those of a queue that are marked.

        Raises:
            ChainDegraded: this engine is stopping; another one ends them.
        """
        for each in record.queue:
            if each.ending:
                _ = self.of(principal, each)

    def of(self, principal: Principal, queued: QueuedRun) -> asyncio.Task[None]:
        """End a marked run; the task that does it, now or already.

        Raises:
            ChainDegraded: this engine is stopping; another one ends it.
        """
        if self._stopping:
            raise ChainDegraded("engine")
        task = self._of_runs.get(queued.run)
        if task is None:
            task = self._tasks.spawn(self._end(principal, queued), queued.run)
            self._of_runs[queued.run] = task
            task.add_done_callback(lambda _: self._of_runs.pop(queued.run, None))
        return task

    async def _end(self, principal: Principal, queued: QueuedRun) -> None:
        entry = as_place(queued)
        ended = await self._settler.settle(principal, entry, queued.ending, queued.ending_message)
        used = used_by(ended, entry)
        crash_point("engine.queue.leaving")
        async for _ in retries():
            try:
                await self._touch(principal, ended)
                await self._users.change(principal, lambda record: drop(record, queued.run, used))
                crash_point("engine.queue.left")
                await self._records.forget_queued(principal, queued.run, queued.kept)
                crash_point("engine.queue.forgotten")
            except NatsUnavailable as error:
                log.warning("a run is not out of its queue yet", run=queued.run, cause=error.what)
            else:
                return

    async def _touch(self, principal: Principal, ended: Run) -> None:
        at_s = ended_at_s(ended, self._clock())
        await self._records.touch_thread(principal, ended.thread, "", at_s)
