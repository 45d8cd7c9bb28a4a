"""The queues that this engine looks after: starts who waits, ends who must not wait any longer.

Invariants: whoever changed a user's queue last looks after it, until it is empty or another engine has
changed it; a queue whose engine is gone is adopted by the clean-up. Nothing here counts: what is done
twice, or by two engines, changes the record once.
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
from factorychain.errors import Capacity, FactoryChainError
from factorychain_engine.admission.queueing import leave, mark, moved, overdue, overdue_at_s
from factorychain_engine.admission.record import UserRecord
from factorychain_engine.lifeline import EndReason
from factorychain_engine.places.factory import HAND_OVER_S
from factorychain_engine.queue.announcing import Announcer, positions_of
from factorychain_engine.queue.endings import QueueEndings
from factorychain_engine.queue.lines import Line, Lines
from factorychain_engine.queue.promoting import Promoter
from factorychain_engine.queue.turns import Turns
from factorychain_engine.records.store import Records
from factorychain_engine.records.users_store import UsersStore, Versioned
from factorychain_engine.retry import Backoff, retries
from factorychain_engine.validation import StartRequest

log = get_logger(__name__)

LAST_PROMOTIONS_S: Final = 2.0


class Queues:
    """A component: the queues."""

    name = "queues"

    def __init__(
        self,
        *,
        engine_id: str,
        users: UsersStore,
        records: Records,
        promoter: Promoter,
        announcer: Announcer,
        endings: QueueEndings,
        max_wait_s: float,
        turns: Turns,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`max_wait_s`: how long a run may wait."""
        self._engine_id = engine_id
        self._users = users
        self._records = records
        self._promoter = promoter
        self._announcer = announcer
        self._endings = endings
        self._max_wait_s = max_wait_s
        self._turns = turns
        self._clock = clock
        self._lines = Lines()
        self._promotions = TaskSet(self.name)
        self._writing = TaskSet(self.name)
        self._stopping = False

    @property
    def healthy(self) -> bool:
        return self._promotions.healthy and self._writing.healthy and self._endings.healthy

    @property
    def owner(self) -> str:
        """Who is to look after the queues that this engine changes: nobody, once it has left them."""
        return "" if self._stopping else self._engine_id

    async def start(self) -> None:
        """Nothing to do: queues come by `changed` and `adopted`."""

    async def stop(self) -> None:
        """Leave every queue to another engine."""
        self._stopping = True
        await self._promotions.finish(LAST_PROMOTIONS_S)
        await self._promotions.close()
        await self._writing.close()
        await self._endings.stop()
        try:
            async with asyncio.timeout(HAND_OVER_S):
                await asyncio.gather(*(self._hand_over(each) for each in self._lines))
        except (NatsUnavailable, TimeoutError):
            log.warning("a queue was not handed over")

    # --- what happens to a queue ------------------------------------------------------------

    def queued(self, start: StartRequest, at_s: float) -> None:
        """A start was queued by this engine."""
        self._announcer.announce(start.principal, [start.run])
        if not self._stopping:
            _ = self._writing.spawn(self._begin_thread(start, at_s), start.run)
        self.look(start.principal)

    async def _begin_thread(self, start: StartRequest, at_s: float) -> None:
        async for _ in retries():
            try:
                await self._records.touch_thread(start.principal, start.thread, start.title, at_s)
            except NatsUnavailable:
                continue
            return

    def freed(self, principal: Principal, record: UserRecord) -> None:
        """This engine has freed a place of the user, and one of its own."""
        if record.queue:
            self.look(principal)
        self._turns.freed()

    def returned(self, principal: Principal) -> None:
        """Agents refused a run that this engine had promoted: it waits again, or is to end. They are not
        asked once more before they have said that they take runs.
        """
        self._turns.refused(principal)
        self.look(principal)

    def changed(self, principal: Principal, before: UserRecord, after: UserRecord) -> None:
        """This engine has changed the queue."""
        self._announcer.announce(principal, moved(before, after))
        if after.queue:
            self.look(principal)

    def adopted(self, principal: Principal, record: UserRecord) -> None:
        """The engine that looked after the queue is gone; it may have told nobody where they stand."""
        self._announcer.announce(principal, positions_of(record))
        self.look(principal)

    def has(self, principal: Principal) -> bool:
        """Whether the user's queue is looked after here."""
        return principal in self._lines

    def tick(self) -> None:
        """Look at those whose time it is; called by the clean-up loop."""
        for principal in self._lines.due(self._clock()):
            self.look(principal)

    # --- looking after one ------------------------------------------------------------------

    def look(self, principal: Principal) -> None:
        """See soon whether somebody can start, or has to end."""
        if self._stopping:
            return
        line = self._lines.of(principal)
        line.again = True
        if line.task is None or line.task.done():
            line.task = self._promotions.spawn(self._attend(principal, line), "queue")

    async def _attend(self, principal: Principal, line: Line) -> None:
        backoff = Backoff()
        is_mine = True
        while line.again and not self._stopping:
            line.again = False
            try:
                is_mine = await self._look(principal)
                backoff.reset()
            except Capacity:
                self._turns.join(principal)
            except FactoryChainError as error:
                log.debug("a queue waits", cause=error.reason)
                line.again = True
                await backoff.pause()
            except Exception:  # one odd queue must not be forgotten, nor end the others
                log.exception("a queue was not looked after")
                self._turns.leave(principal)
                await backoff.pause()
        if not is_mine and not self._stopping:
            self._lines.forget(principal)

    async def _look(self, principal: Principal) -> bool:
        """Do what there is to do; whether the queue is this engine's afterwards."""
        while True:
            known = await self._users.read(principal)
            record = known.record
            if overdue(record, self._clock(), self._max_wait_s):
                await self._end_overdue(principal)
                continue
            if not await self._promoted(principal, known):
                break
        self._endings.all_of(principal, record)
        if record.queue and record.queue_owner == self._engine_id:
            self._lines.of(principal).overdue_at_s = overdue_at_s(record, self._max_wait_s)
            return True
        self._turns.leave(principal)
        return False

    async def _promoted(self, principal: Principal, known: Versioned) -> bool:
        """Start the next one; False: nobody can start now."""
        if self._stopping:
            return False
        if not self._promoter.startable(principal, known.record):
            self._turns.leave(principal)
            return False
        if not self._turns.may_begin(principal):
            self._turns.join(principal)
            return False
        change = await self._promoter.promote(principal, known)
        if change is None:  # its limit has just changed
            return False
        if change.began:
            self._turns.began(principal)
        self._announcer.announce(principal, moved(change.before, change.after))
        return True

    async def _end_overdue(self, principal: Principal) -> None:
        now_s = self._clock()

        def ended(record: UserRecord) -> UserRecord:
            runs = overdue(record, now_s, self._max_wait_s)
            return mark(record, runs, EndReason.QUEUE_TIMEOUT, self.owner)

        await self._mark(principal, ended)

    # --- ending -----------------------------------------------------------------------------

    async def end(
        self, principal: Principal, run: str, reason: EndReason, timeout_s: float
    ) -> bool:
        """End a run that waits; False if it has not ended in time, or does not wait any more.

        Raises:
            NatsUnavailable: storage does not answer.
            ChainDegraded: this engine is stopping; another one ends the run.
        """
        record = await self._mark(principal, lambda record: mark(record, [run], reason, self.owner))
        queued = record.waiting(run)
        if queued is None:
            return False
        done, _ = await asyncio.wait([self._endings.of(principal, queued)], timeout=timeout_s)
        return bool(done)

    async def end_thread(self, principal: Principal, thread: str, reason: EndReason) -> None:
        """See to it that none of those that wait for a thread starts; their endings follow.

        Raises:
            NatsUnavailable: storage does not answer.
            ChainDegraded: this engine is stopping; another one ends those.
        """

        def ended(record: UserRecord) -> UserRecord:
            runs = [each.run for each in record.waiting_in(thread)]
            return mark(record, runs, reason, self.owner)

        self._endings.all_of(principal, await self._mark(principal, ended))

    async def _mark(
        self, principal: Principal, change: Callable[[UserRecord], UserRecord]
    ) -> UserRecord:
        seen: list[UserRecord] = []

        def noted(record: UserRecord) -> UserRecord:
            seen.append(record)
            return change(record)

        record = await self._users.change(principal, noted)
        crash_point("engine.queue.marked")
        self.changed(principal, seen[-1], record)
        return record

    async def _hand_over(self, principal: Principal) -> None:
        crash_point("engine.queue.handing")
        await self._users.change(principal, lambda record: leave(record, self._engine_id))
        crash_point("engine.queue.handed")
