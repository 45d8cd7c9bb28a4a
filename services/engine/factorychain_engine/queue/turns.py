"""Who may begin a run here and now, when there is too little room for all who want it: at agents, or in
this engine.

Invariant: while somebody waits for room, what becomes free goes to those whose turn it is, whichever engine
looks after them; a start that came just now waits behind them, or is refused. What is known here may be
a moment old: then a turn is taken too early, agents refuse it, and the user has the ticket of before.

Those who wait stand in a list that all engines read (`waiting_list`), in the order of `fairness`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from factorychain._core.component import TaskSet
from factorychain._core.ids import Principal
from factorychain._core.kv import KvBucket
from factorychain._core.logging import get_logger
from factorychain._core.stored import NatsUnavailable
from factorychain.errors import Capacity
from factorychain_engine.places.own_room import no_room
from factorychain_engine.queue.fairness import Patience, Waiting
from factorychain_engine.queue.waiting_list import WaitingList
from factorychain_engine.retry import Backoff

log = get_logger(__name__)

LOOK_S: Final = 0.5
PASSED_OVER_AFTER_S: Final = 3.0
SCARCE_FOR_S: Final = 5.0
"""So long after there was no room it is looked whether somebody waits."""
STALE_AFTER_S: Final = 10.0

PAUSE_SHARE: Final = 3.0
"""After a look, so many times what it took: that many wait must not keep the engine busy with looking."""

SCARCE_ROOM: Final = 3
"""So few places are likely to be all taken in a moment."""

_NEVER_S: Final = float("-inf")


class Turns:
    """A component: waits for room, for the users whose queues are this engine's."""

    name = "turns"

    def __init__(
        self,
        engine_id: str,
        bucket: KvBucket,
        *,
        ready: Callable[[], Awaitable[None]],
        room: Callable[[], int | None],
        own_room: Callable[[], int | None],
        look: Callable[[Principal], None],
    ) -> None:
        """`ready` returns when there are agents to be asked (`agents.layer.Agents`). `room`: how many runs
        they have room for; None: not known. `own_room`: how many this engine has; None: there is no limit.
        `look` is called when it is a user's turn.
        """
        self._engine_id = engine_id
        self._list = WaitingList(engine_id, bucket)
        self._ready = ready
        self._room = room
        self._own_room = own_room
        self._look = look
        self._granted: set[Principal] = set()
        self._order: tuple[Waiting, ...] = ()
        self._patience = Patience(PASSED_OVER_AFTER_S)
        self._scarce_until_s = _NEVER_S
        self._read_at_s = _NEVER_S
        self._wake = asyncio.Event()
        self._tasks = TaskSet(self.name)

    @property
    def healthy(self) -> bool:
        return self._tasks.healthy

    @property
    def line(self) -> tuple[Waiting, ...]:
        """Who waits for room, at any engine, in the order of their turns, as it was read last."""
        return self._order

    async def start(self) -> None:
        _ = self._tasks.spawn(self._look_for_ever(), "look")

    async def stop(self) -> None:
        """Those who wait keep their tickets for the engine that adopts their queues."""
        await self._tasks.close()

    # --- asking for room --------------------------------------------------------------------

    async def ready(self, principal: Principal) -> None:
        """Return when agents can be asked to take a run of this user.

        Raises:
            Capacity: they are full, or this engine is, or others come first.
            ChainDegraded: they are away.
        """
        try:
            await self._ready()
        except Capacity:
            self._scarce()
            raise
        room = self._room()
        if room is not None and room <= SCARCE_ROOM:
            self._scarce()
        if not self.may_begin(principal):
            raise no_room()

    def may_begin(self, principal: Principal) -> bool:
        """False if this engine is full, or all room that there is belongs to others, who have waited longer."""
        own_room = self._own_room()
        if own_room == 0:
            return False
        if principal in self._granted or self._is_stale():
            return True
        if own_room is not None and own_room <= len(self._list):
            return False
        waiting = max(len(self._order), len(self._list))
        room = self._room()
        return not waiting or (room is not None and room > waiting)

    def _is_stale(self) -> bool:
        """Whether what was read is too old to hold anybody up for it."""
        return asyncio.get_running_loop().time() - self._read_at_s > STALE_AFTER_S

    # --- waiting ----------------------------------------------------------------------------

    def join(self, principal: Principal) -> None:
        """The user has a run that could begin if there were room."""
        self._scarce()
        if principal not in self._list or principal in self._granted:
            self._wake.set()
        self._granted.discard(principal)
        self._list.join(principal)

    def leave(self, principal: Principal) -> None:
        """The user has no such run any more, or another engine looks after them."""
        self._granted.discard(principal)
        if principal in self._list:
            self._list.leave(principal)
            self._wake.set()

    def began(self, principal: Principal) -> None:
        """A run of the user has got room: the user draws another ticket, and the tenant."""
        self._granted.discard(principal)
        if principal in self._list:
            self._list.served(principal)
            self._wake.set()

    def refused(self, principal: Principal) -> None:
        """Agents did not take that run after all: the user waits again, with the ticket of before."""
        self._granted.discard(principal)
        self._scarce()
        self._list.refused(principal)
        self._wake.set()

    def freed(self) -> None:
        """There may be room again."""
        if len(self._list):
            self._wake.set()

    def _scarce(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._is_idle(now_s):
            self._read_at_s = now_s  # it was not looked on purpose, and is from now on
            self._wake.set()
        self._scarce_until_s = now_s + SCARCE_FOR_S

    def _is_idle(self, now_s: float) -> bool:
        """Whether there is no reason to look who waits."""
        return self._list.is_written and not self._order and now_s > self._scarce_until_s

    # --- giving turns -----------------------------------------------------------------------

    async def _look_for_ever(self) -> None:
        loop, backoff = asyncio.get_running_loop(), Backoff()
        while True:
            await self._pause(None if self._is_idle(loop.time()) else LOOK_S)
            began_s = loop.time()
            try:
                await self._list.write(loop.time(), full=self._own_room() == 0)
                self._order = await self._list.read()
                self._read_at_s = loop.time()
                self._give(loop.time())
            except NatsUnavailable as error:
                log.debug("who waits for room is not known now", cause=error.what)
            except Exception:  # one odd answer must not end the turns of all
                log.exception("the turns were not given")
                await backoff.pause()
            else:
                backoff.reset()
                await asyncio.sleep(min(LOOK_S, PAUSE_SHARE * (loop.time() - began_s)))

    async def _pause(self, at_most_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._wake.wait()
        self._wake.clear()

    def _give(self, now_s: float) -> None:
        room, own_room = self._room(), self._own_room()
        # Where it is not known, one at a time finds out.
        left = 1 if room is None else room
        for each in self._patience.due(self._order, left, now_s):
            if own_room is not None and len(self._granted) >= own_room:
                return
            if self._list.is_so(each) and each.principal not in self._granted:
                self._granted.add(each.principal)
                self._look(each.principal)
