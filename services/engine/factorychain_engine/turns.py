"""Who may have room at agents, when there is too little for all who want it.

Invariant: while somebody waits for room, what becomes free goes to those whose turn it is, whichever engine
looks after them; a start that came just now waits behind them, or is refused. What is known here may be
a moment old: then a turn is taken too early, agents refuse it, and the user keeps their ticket.

Those who wait stand in a bucket that all engines read, with the tickets that `fairness` orders them by. It is
written only while the system is full. An entry that nobody renews goes by its age.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Final

import orjson

from factorychain._core.component import TaskSet
from factorychain._core.ids import Principal
from factorychain._core.kv import KvBucket
from factorychain._core.logging import get_logger
from factorychain._core.metrics import up_down_counter
from factorychain._core.stored import KvEntry, NatsUnavailable
from factorychain.errors import Capacity
from factorychain_engine.fairness import Patience, Waiting, fair_order

log = get_logger(__name__)
_waiting = up_down_counter(
    "factorychain.engine.waiting_for_room", "Users of this engine who wait for room at agents"
)

LOOK_S: Final = 0.5
ENTRY_MAX_AGE_S: Final = 60.0
"""What an engine that is gone has left in the bucket goes by then."""
RENEW_S: Final = 20.0
PASSED_OVER_AFTER_S: Final = 3.0
SCARCE_FOR_S: Final = 5.0
"""So long after there was no room it is looked whether somebody waits."""
RETRY_AFTER_S: Final = 2.0

SCARCE_ROOM: Final = 3
"""So few places are likely to be all taken in a moment."""

_NEVER_S: Final = float("-inf")
_USERS: Final = "u"
_TENANTS: Final = "t"


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
    ) -> None:
        """`ready` returns when there are agents to be asked (`agents_layer.Agents`). `room`: how many runs
        fit; None: not known.
        """
        self._engine_id = engine_id
        self._bucket = bucket
        self._ready = ready
        self._room = room
        self._wanting: dict[Principal, _Wanting] = {}
        self._granted: set[Principal] = set()
        self._order: tuple[Waiting, ...] = ()
        self._patience = Patience(PASSED_OVER_AFTER_S)
        self._scarce_until_s = _NEVER_S
        self._wake = asyncio.Event()
        self._tasks = TaskSet(self.name)
        self.look: Callable[[Principal], None] = _nobody
        """Called when it is a user's turn."""

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
            Capacity: they are full, or others come first.
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
            raise Capacity(retry_after_s=RETRY_AFTER_S)

    def may_begin(self, principal: Principal) -> bool:
        """False if all room that there is belongs to others, who have waited longer."""
        if principal in self._granted or not self._order:
            return True
        room = self._room()
        return room is not None and room > len(self._order)

    # --- waiting ----------------------------------------------------------------------------

    def join(self, principal: Principal) -> None:
        """The user has a run that could begin if there were room."""
        self._granted.discard(principal)
        self._scarce()
        wanting = self._wanting.get(principal)
        if wanting is None:
            wanting = self._wanting[principal] = _Wanting()
            _waiting.add(1)
        wanting.come_back()
        self._wake.set()

    def leave(self, principal: Principal) -> None:
        """The user has no such run any more, or another engine looks after them."""
        self._granted.discard(principal)
        wanting = self._wanting.get(principal)
        if wanting is not None:
            wanting.gone = True
            self._wake.set()

    def began(self, principal: Principal) -> None:
        """A run of the user has got room: the user draws another ticket, and the tenant."""
        self._granted.discard(principal)
        wanting = self._wanting.get(principal)
        if wanting is not None:
            wanting.served = True
            self._wake.set()

    def refused(self, principal: Principal) -> None:
        """Agents did not take that run after all: the user has the ticket of before."""
        wanting = self._wanting.get(principal)
        if wanting is not None:
            wanting.take_back()

    def freed(self) -> None:
        """There may be room again."""
        if self._wanting:
            self._wake.set()

    def _scarce(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s > self._scarce_until_s:
            self._wake.set()
        self._scarce_until_s = now_s + SCARCE_FOR_S

    # --- giving turns -----------------------------------------------------------------------

    async def _look_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            idle = not self._wanting and not self._order and loop.time() > self._scarce_until_s
            await self._pause(None if idle else LOOK_S)
            try:
                await self._write(loop.time())
                await self._read()
            except NatsUnavailable as error:
                log.debug("who waits for room is not known now", cause=error.what)
                continue
            self._give(loop.time())

    async def _pause(self, at_most_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._wake.wait()
        self._wake.clear()

    def _give(self, now_s: float) -> None:
        room = self._room()
        # Where it is not known, one at a time finds out.
        left = 1 if room is None else room
        for each in self._patience.due(self._order, left, now_s):
            if each.engine == self._engine_id and each.principal not in self._granted:
                wanting = self._wanting.get(each.principal)
                if wanting is not None and not wanting.gone:
                    self._granted.add(each.principal)
                    self.look(each.principal)

    # --- the bucket -------------------------------------------------------------------------

    async def _write(self, now_s: float) -> None:
        for principal, wanting in list(self._wanting.items()):
            if wanting.served:
                wanting.draw_another()
                key = f"{_TENANTS}.{_hash(principal.tenant)}"
                await self._bucket.put(key, orjson.dumps({"tenant": principal.tenant}))
            if wanting.gone:
                await self._bucket.delete(_key(principal))
                if wanting.gone:  # it may have come back meanwhile
                    del self._wanting[principal]
                    _waiting.add(-1)
            elif now_s - wanting.stored_at_s > RENEW_S:
                await self._put(principal, wanting, now_s)

    async def _put(self, principal: Principal, wanting: _Wanting, now_s: float) -> None:
        """Stand in line; with the ticket that the user has, also one that another engine drew for them."""
        key = _key(principal)
        if wanting.is_new:
            found = _waiting_of(await self._bucket.read(key))
            wanting.ticket = 0 if found is None else found.ticket
        document = {
            "tenant": principal.tenant,
            "user": principal.user,
            "engine": self._engine_id,
            "ticket": wanting.ticket,
        }
        revision = await self._bucket.put(key, orjson.dumps(document))
        wanting.ticket = wanting.ticket or revision
        wanting.stored_at_s, wanting.is_new = now_s, False

    async def _read(self) -> None:
        waiting: list[Waiting] = []
        served: dict[str, int] = {}
        for entry in await self._bucket.list():
            found = _waiting_of(entry)
            if found is not None:
                waiting.append(found)
            elif entry.key.startswith(f"{_TENANTS}.") and entry.value is not None:
                served[str(orjson.loads(entry.value)["tenant"])] = entry.revision
        self._order = fair_order(waiting, served)


class _Wanting:
    """A user of this engine who waits."""

    def __init__(self) -> None:
        self.is_new = True
        self.ticket = 0
        """0: to be drawn."""
        self.before = 0
        """The ticket before this one; 0: none."""
        self.stored_at_s = _NEVER_S
        self.served = False
        self.gone = False

    def come_back(self) -> None:
        """Wait, whatever was before."""
        if self.gone:
            self.gone, self.stored_at_s = False, _NEVER_S

    def draw_another(self) -> None:
        """Go behind the others."""
        self.before, self.ticket = self.ticket, 0
        self.served, self.stored_at_s = False, _NEVER_S

    def take_back(self) -> None:
        """Stand again where one stood before."""
        if self.served:
            self.served = False
        elif self.before:
            self.ticket, self.stored_at_s = self.before, _NEVER_S
        self.before = 0


def _nobody(_: Principal) -> None:
    """Before anything is wired."""


def _key(principal: Principal) -> str:
    return f"{_USERS}.{principal.ukey}"


def _hash(tenant: str) -> str:
    return blake2b(tenant.encode(), digest_size=12).hexdigest()


def _waiting_of(entry: KvEntry) -> Waiting | None:
    """Who waits by an entry of the bucket; None: nobody."""
    if entry.value is None or not entry.key.startswith(f"{_USERS}."):
        return None
    said = orjson.loads(entry.value)
    principal = Principal(said["tenant"], said["user"])
    return Waiting(principal, said["engine"], said["ticket"] or entry.revision)
