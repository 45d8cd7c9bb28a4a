"""Looks whether the engine's buckets are there, hold what they held and take what is stored, and mends what
can be mended.

Invariant: what NATS has not answered says nothing about a bucket; an outage is the connection's matter.
What is stored only to look is nobody's record, counts for nothing and goes by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from factorychain._core.component import TaskSet
from factorychain._core.logging import get_logger
from factorychain._core.stored import (
    NatsUnavailable,
    StorageRefused,
    StreamContents,
    StreamMissing,
)
from factorychain._core.telemetry import counter
from factorychain_engine.storage.buckets import QUEUED, RUNS, THREADS, USERS, VALUES, Storage
from factorychain_engine.storage.restoring import Restorer
from factorychain_engine.storage.sentinel import Sentinel
from factorychain_engine.storage.state import Loss

log = get_logger(__name__)
_losses = counter("factorychain.engine.storage_losses", "Contents of buckets that were lost")

PROOF_WITHIN_S: Final = 2.0

STORES_NOTHING: Final = (
    "NATS answers, but not to what is to be stored; it may have no room on its disk, which its own log"
    " says, and needs a restart when there is some again"
)

_WHAT_IS_LOST: Final = {
    USERS: "active and waiting runs that no living engine looks after, and what users have consumed",
    RUNS: "what ended runs have left; a start that is repeated may run again",
    THREADS: "titles and times of threads",
    VALUES: (
        "what agents kept in threads, of which there is no other copy: they find nothing and begin with"
        " their defaults"
    ),
    QUEUED: "the input of runs that wait, which end with INPUT_LOST",
}


class StorageWatch:
    """A component: the looks."""

    name = "storage_watch"

    def __init__(
        self,
        storage: Storage,
        restorer: Restorer,
        look_s: float,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._state = storage.state
        self._restorer = restorer
        self._look_s = look_s
        self._monotonic = monotonic
        self._clock = clock
        self._sentinels = {
            VALUES: Sentinel(storage.values, clock),
            QUEUED: Sentinel(storage.queued, clock),
        }
        self._tasks = TaskSet(self.name)
        self._wake = asyncio.Event()

    @property
    def healthy(self) -> bool:
        """Whether storage is such that something new may start."""
        return self._tasks.healthy and self._storage.settled

    async def start(self) -> None:
        _ = self._tasks.spawn(self._look_for_ever(), "look")

    async def stop(self) -> None:
        await self._tasks.close()

    def users_vanished(self) -> None:
        """The record of a user was there and is not."""
        self._state.forget(USERS)
        self._users_lost(Loss.VANISHED)
        self._wake.set()

    # --- looking ----------------------------------------------------------------------------

    async def _look_for_ever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._look_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                await self._look()
            except NatsUnavailable as error:
                log.debug("storage cannot be looked at", cause=error.what)
            except Exception:  # one odd answer must not end the looks
                log.exception("a look at storage failed")

    async def _look(self) -> None:
        answered = await asyncio.gather(*(self._look_at(each) for each in self._storage.buckets))
        if not any(answered):
            return
        await asyncio.gather(*(self._prove(each) for each in self._state.to_prove()))
        if self._state.restoring:
            began_s = self._monotonic()
            await self._restorer.users()
            if self._state.entered_again(began_s):
                self._restorer.done()
                log.info("what is known of users' records is entered again")

    async def _look_at(self, name: str) -> bool:
        """Whether there was an answer."""
        try:
            await self._look_into(name)
        except NatsUnavailable as error:
            log.debug("a bucket cannot be looked at", bucket=name, cause=error.what)
            if error.sent:
                self._state.unanswered(name)
            return not error.sent
        return True

    async def _look_into(self, name: str) -> None:
        bucket = self._storage.buckets[name]
        try:
            contents = await bucket.contents()
        except StreamMissing:
            now_s = self._monotonic()
            self._state.missing(name, now_s)
            if not self._state.may_make(name, now_s, at_once=name != USERS):
                return
            await self._make(name)
            contents = await bucket.contents()
        loss = self._state.seen(name, contents, self._clock())
        if loss is None and await self._was_purged(name, contents):
            loss = Loss.PURGED
        if loss is not None:
            self._lost(name, loss)
        elif name == USERS and self._state.is_whole(name) and not self._state.restoring:
            self._restorer.nothing_lost()

    async def _was_purged(self, name: str, contents: StreamContents) -> bool:
        """As a sentinel tells it, of a bucket whose contents go at any time."""
        sentinel = self._sentinels.get(name)
        if sentinel is None:
            return False
        try:
            return await sentinel.was_purged(contents)
        except StorageRefused as error:
            raise NatsUnavailable(f"{name} takes no sentinel: {error}", sent=False) from error

    async def _make(self, name: str) -> None:
        try:
            await self._storage.make(name)
        except StorageRefused as error:
            raise NatsUnavailable(f"{name} cannot be made again: {error}", sent=False) from error

    async def _prove(self, name: str) -> None:
        try:
            async with asyncio.timeout(PROOF_WITHIN_S):
                await self._storage.buckets[name].try_to_store()
        except (NatsUnavailable, TimeoutError) as error:
            has_said_why = isinstance(error, NatsUnavailable) and not error.sent
            # Other questions were answered. If the connection broke since, that is another matter.
            if self._storage.healthy and not has_said_why:
                self._state.not_proved(name, STORES_NOTHING)
        else:
            self._state.proved(name)

    # --- what was lost ----------------------------------------------------------------------

    def _lost(self, name: str, loss: Loss) -> None:
        if name == USERS:
            self._users_lost(loss)
            return
        self._say(name, loss)
        if name in (RUNS, THREADS):
            self._restorer.records()

    def _users_lost(self, loss: Loss) -> None:
        if self._state.users_lost(self._monotonic()):
            self._say(USERS, loss)

    def _say(self, name: str, loss: Loss) -> None:
        _losses.add(1, {"bucket": name})
        if name in _WHAT_IS_LOST:
            log.critical(
                "the contents of a bucket are lost",
                bucket=name,
                how=loss.value,
                lost=_WHAT_IS_LOST[name],
            )
        else:
            log.warning("a bucket was made again", bucket=name)
