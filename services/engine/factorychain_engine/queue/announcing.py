"""Tells users in which position their runs wait: `run_queued` in the run's own thread.

Invariants: what is said was so after the position in the log was read from which it is said, so it can
come neither after the run's beginning nor after its ending: the bridge refuses what is older. Positions
that change again before they are said are said once, and one user's at most once in `PAUSE_S`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from factorychain._core.component import TaskSet
from factorychain._core.crash_points import crash_point
from factorychain._core.ids import Principal
from factorychain._core.log_reader import LogPosition, ThreadLogReader
from factorychain._core.logging import get_logger
from factorychain.errors import FactoryChainError
from factorychain.types.v1.event_pb2 import Event
from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.queueing import as_place
from factorychain_engine.admission.record import UserRecord
from factorychain_engine.records.endings import timestamp
from factorychain_engine.records.store import Records
from factorychain_engine.records.users_store import UsersStore
from factorychain_engine.retry import Backoff
from factorychain_engine.runs.speaking import Speaker, cause_of

log = get_logger(__name__)

PAUSE_S: Final = 0.5


@dataclass
class _User:
    """What is to be said to one user."""

    runs: set[str] = field(default_factory=set)
    said: dict[str, int] = field(default_factory=dict)
    """The position that was said last, by run: of those that still wait, while there is more to say."""


class Announcer:
    """Says positions; a component."""

    name = "announcer"

    def __init__(
        self,
        *,
        speaker: Speaker,
        users: UsersStore,
        records: Records,
        log: ThreadLogReader,
        pause_s: float = PAUSE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._speaker = speaker
        self._users = users
        self._records = records
        self._log = log
        self._pause_s = pause_s
        self._clock = clock
        self._of_users: dict[Principal, _User] = {}
        self._tasks = TaskSet(self.name)
        self._stopping = False

    @property
    def healthy(self) -> bool:
        return self._tasks.healthy

    async def start(self) -> None:
        """Nothing to do: positions come by `announce`."""

    async def stop(self) -> None:
        self._stopping = True
        await self._tasks.close()

    def announce(self, principal: Principal, runs: Iterable[str]) -> None:
        """Say the positions of these, as they are when it is their turn."""
        wanted = set(runs)
        if self._stopping or not wanted:
            return
        user = self._of_users.get(principal)
        if user is None:
            user = self._of_users[principal] = _User()
            _ = self._tasks.spawn(self._say_all(principal, user), "positions")
        user.runs |= wanted

    async def _say_all(self, principal: Principal, user: _User) -> None:
        """While there is something to say."""
        backoff = Backoff()
        try:
            while user.runs:
                runs, user.runs = user.runs, set()
                try:
                    await self._say(principal, user, runs)
                except (FactoryChainError, TimeoutError) as error:
                    log.info("positions are not told yet", cause=cause_of(error))
                    user.runs |= runs
                    await backoff.pause()
                except Exception:  # those that come later must be told all the same
                    log.exception("positions are not told yet")
                    user.runs |= runs
                    await backoff.pause()
                else:
                    backoff.reset()
                    await asyncio.sleep(self._pause_s)
        finally:
            del self._of_users[principal]

    async def _say(self, principal: Principal, user: _User, runs: set[str]) -> None:
        before = (await self._users.read(principal)).record
        waiting = [each for each in before.queue if each.run in runs and not each.ending]
        if not waiting:
            return
        ends = await asyncio.gather(*(self._log.last(principal, each.thread) for each in waiting))
        record = (await self._users.read(principal)).record
        user.said = {run: at for run, at in user.said.items() if record.position(run)}
        said = [
            self._say_one(principal, user, _from(queued, last), record.position(queued.run))
            for queued, last in zip(waiting, ends, strict=True)
            if record.position(queued.run)
        ]
        for outcome in await asyncio.gather(*said, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _say_one(
        self, principal: Principal, user: _User, queued: QueuedRun, position: int
    ) -> None:
        if user.said.get(queued.run) == position:
            return
        kept = await self._records.queued(principal, queued.run, queued.kept)
        event = Event(at=timestamp(self._clock()), trace=queued.trace)
        event.run_queued.position = position
        event.run_queued.input_json = "" if kept is None else kept.run.input_json
        if await self._speaker.say(principal, as_place(queued), event):
            crash_point("engine.queue.announced")
            user.said[queued.run] = position


def _from(queued: QueuedRun, last: LogPosition | None) -> QueuedRun:
    """The run as of where its thread's log ends now: nothing before that needs to be read again."""
    if last is None:
        return queued
    return replace(queued, base=last.stream_seq, base_seq=last.seq, base_epoch=last.epoch)


def positions_of(record: UserRecord) -> list[str]:
    """All that wait to start: what an engine announces that has taken a queue over."""
    return [each.run for each in record.queue if not each.ending]
