"""The clean-up loop: limits of the runs that this engine has, and runs that no engine has.

Invariant: one pass does both, and a pass that could not read storage counts as none: the loop is
unhealthy when no pass has succeeded for a while, and adopts nothing until it can see again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from factorychain._core.component import TaskSet
from factorychain._core.crash_points import crash_point
from factorychain._core.ids import Principal
from factorychain._core.logging import get_logger
from factorychain._core.stored import NatsUnavailable
from factorychain._core.telemetry import counter
from factorychain_engine.admission.record import ActiveRun, UserRecord, adopt
from factorychain_engine.ownership.heartbeat import Heartbeat
from factorychain_engine.ownership.roll import EngineRoll
from factorychain_engine.places.factory import UNOWNED
from factorychain_engine.queue.queues import Queues
from factorychain_engine.records.users_store import UsersStore
from factorychain_engine.runs.supervised_runs import SupervisedRuns

log = get_logger(__name__)
_adopted = counter("factorychain.engine.adopted", "Runs that were adopted")

SWEEP_EVERY_S: Final = 300.0
"""How often all records are looked through although nobody is missing."""
UNHEALTHY_AFTER_PASSES: Final = 4

_QUEUE: Final = ""
"""In the place of a run's id: the queue."""

Adopt = Callable[[Principal, ActiveRun], None]


class CleanUp:
    """A component: the loop."""

    name = "clean_up"

    def __init__(
        self,
        *,
        engine_id: str,
        heartbeat: Heartbeat,
        users: UsersStore,
        runs: SupervisedRuns,
        adopt_run: Adopt,
        queues: Queues,
        roll: EngineRoll,
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine_id = engine_id
        self._heartbeat = heartbeat
        self._users = users
        self._runs = runs
        self._adopt_run = adopt_run
        self._queues = queues
        self._roll = roll
        self._interval_s = interval_s
        self._clock = clock
        self._tasks = TaskSet(self.name)
        self._passed_at_s = clock()
        self._swept_at_s = float("-inf")
        self._asked = False
        self.passes = 0
        """How many passes have succeeded."""

    @property
    def healthy(self) -> bool:
        """Whether a pass has succeeded lately."""
        since_s = self._clock() - self._passed_at_s
        return self._tasks.healthy and since_s < UNHEALTHY_AFTER_PASSES * self._interval_s + 5.0

    async def start(self) -> None:
        self._passed_at_s = self._clock()
        _ = self._tasks.spawn(self._pass_for_ever(), "loop")

    async def stop(self) -> None:
        await self._tasks.close()

    def sweep_soon(self) -> None:
        """Look through all records at the next pass."""
        self._asked = True

    async def _pass_for_ever(self) -> None:
        while True:
            await self.look_once()
            await asyncio.sleep(self._interval_s)

    async def look_once(self) -> None:
        """One pass."""
        try:
            self._runs.tick()
            self._queues.tick()
            await self._look_for_forgotten()
            await self._look_for_orphans()
        except NatsUnavailable as error:
            self._roll.look(None, can_renew=self._heartbeat.healthy)
            self.sweep_soon()  # who has vanished may have been noticed in this pass only
            log.warning("the clean-up cannot read the records", cause=error.what)
        except Exception:  # one odd record must not end the loop for all
            log.exception("the clean-up failed")
        else:
            self.passes += 1
            self._passed_at_s = self._clock()

    async def _look_for_forgotten(self) -> None:
        """A place that this engine took must not wait for a look through all records."""
        for principal, record in self._users.remembered():
            forgotten = {
                each.run: each.owner
                for each in record.active
                if self._is_forgotten(principal, each)
            }
            if forgotten:
                await self._adopt(principal, forgotten)
            elif record.queue and self._is_forgotten_queue(principal, record):
                self._queues.adopted(principal, record)

    async def _look_for_orphans(self) -> None:
        present = await self._heartbeat.engines()
        vanished = self._roll.look(present, can_renew=self._heartbeat.healthy)
        due = self._clock() - self._swept_at_s >= SWEEP_EVERY_S
        if not (due or self._asked or vanished or self._roll.pending):
            return
        self._asked = False  # asked again from now on means another look
        owners: set[str] = set()
        async for principal, record in self._users.scan():
            owners.update(_owners(record))
            self._runs.look_at(principal, record)
            orphans = self._orphans(principal, record)
            if orphans:
                await self._adopt(principal, orphans)
        self._roll.forget(owners)
        self._swept_at_s = self._clock()

    def _orphans(self, principal: Principal, record: UserRecord) -> dict[str, str]:
        """The runs that nobody looks after, and the queue if so, with the owner that they had."""
        owners = _owners(record) - {self._engine_id, UNOWNED}
        gone = self._roll.gone(owners, self._clock()) | {UNOWNED}
        orphans = {
            each.run: each.owner
            for each in record.active
            if each.owner in gone or self._is_forgotten(principal, each)
        }
        if record.queue and (
            record.queue_owner in gone or self._is_forgotten_queue(principal, record)
        ):
            orphans[_QUEUE] = record.queue_owner
        return orphans

    def _is_forgotten_queue(self, principal: Principal, record: UserRecord) -> bool:
        return record.queue_owner == self._engine_id and not self._queues.has(principal)

    def _is_forgotten(self, principal: Principal, entry: ActiveRun) -> bool:
        """This engine's own, but nothing here holds it: storage never said that it was taken."""
        return (
            entry.owner == self._engine_id
            and not self._runs.is_starting(entry.run)
            and self._runs.find(principal, entry.run) is None
        )

    async def _adopt(self, principal: Principal, orphans: dict[str, str]) -> None:
        gone = set(orphans.values()) - {self._engine_id}
        crash_point("engine.adopt.taking")
        record = await self._users.change(
            principal, lambda record: adopt(record, gone, self._engine_id)
        )
        crash_point("engine.adopt.taken")
        if record.queue and record.queue_owner == self._engine_id:
            self._queues.adopted(principal, record)
        for run in orphans:
            entry = record.find(run)
            if entry is None or entry.owner != self._engine_id:
                continue  # freed meanwhile, or another engine was faster
            if not self._runs.is_starting(run) and self._runs.find(principal, run) is None:
                _adopted.add(1)
                self._adopt_run(principal, entry)


def _owners(record: UserRecord) -> set[str]:
    """The engines that look after something of the user's."""
    owners = {each.owner for each in record.active}
    return owners | {record.queue_owner} if record.queue else owners
