"""Those who wait for room at agents, at any engine, as a small bucket that all engines share.

Invariant: a user stands in it once, with the ticket that they drew when they began to wait or got room
last, whichever engine looks after them. It is written only while the system is full, and an entry that
nobody renews goes by its age.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

import orjson

from factorychain._core.ids import Principal
from factorychain._core.kv import KvBucket
from factorychain._core.metrics import up_down_counter
from factorychain._core.stored import KvEntry, WrongLastSequence
from factorychain_engine.fairness import Waiting, fair_order

_waiting = up_down_counter(
    "factorychain.engine.waiting_for_room", "Users of this engine who wait for room at agents"
)

ENTRY_MAX_AGE_S: Final = 60.0
"""What an engine that is gone has left goes by then."""
RENEW_S: Final = 20.0

_NEVER_S: Final = float("-inf")
_USERS: Final = "u"
_TENANTS: Final = "t"


class WaitingList:
    """The list, and those of this engine who are to stand in it."""

    def __init__(self, engine_id: str, bucket: KvBucket) -> None:
        self._engine_id = engine_id
        self._bucket = bucket
        self._own: dict[Principal, _Wanting] = {}

    def __len__(self) -> int:
        return len(self._own)

    def __contains__(self, principal: Principal) -> bool:
        """Whether the user waits here."""
        wanting = self._own.get(principal)
        return wanting is not None and not wanting.gone

    # --- what is to be written --------------------------------------------------------------

    def join(self, principal: Principal) -> None:
        """Wait; who waits already keeps the ticket."""
        wanting = self._own.get(principal)
        if wanting is None:
            wanting = self._own[principal] = _Wanting()
            _waiting.add(1)
        wanting.come_back()

    def leave(self, principal: Principal) -> None:
        """Wait no more, or not at this engine."""
        wanting = self._own.get(principal)
        if wanting is not None:
            wanting.gone = True

    def served(self, principal: Principal) -> None:
        """The user has got room: another ticket is drawn, and one for the tenant."""
        wanting = self._own.get(principal)
        if wanting is not None:
            wanting.served = True

    def refused(self, principal: Principal) -> None:
        """There was no room after all: the user has the ticket of before."""
        wanting = self._own.get(principal)
        if wanting is not None:
            wanting.take_back()

    # --- the bucket -------------------------------------------------------------------------

    async def write(self, now_s: float) -> None:
        """Bring the bucket to what is to be written; `now_s` by any clock that does not jump.

        Raises:
            NatsUnavailable: storage is away; to be called again.
        """
        for principal, wanting in list(self._own.items()):
            if wanting.served:
                tenant = orjson.dumps({"tenant": principal.tenant})
                await self._bucket.put(f"{_TENANTS}.{_hash(principal.tenant)}", tenant)
                if wanting.served:  # it may have been refused meanwhile
                    wanting.draw_another()
            if wanting.gone:
                await self._remove(principal)
                if wanting.gone:  # it may have come back meanwhile
                    del self._own[principal]
                    _waiting.add(-1)
            elif now_s - wanting.stored_at_s > RENEW_S:
                await self._put(principal, wanting, now_s)

    async def read(self) -> tuple[Waiting, ...]:
        """Who waits, in the order of their turns.

        Raises:
            NatsUnavailable: storage is away.
        """
        waiting: list[Waiting] = []
        served: dict[str, int] = {}
        for entry in await self._bucket.list():
            found = _waiting_of(entry)
            if found is not None:
                waiting.append(found)
            elif entry.key.startswith(f"{_TENANTS}."):
                served[_said(entry).get("tenant", "")] = entry.revision
        self._note_missing({each.principal for each in waiting if each.engine == self._engine_id})
        return fair_order(waiting, served)

    def _note_missing(self, there: set[Principal]) -> None:
        """Another engine that looked after a user may have removed them as it left."""
        for principal, wanting in self._own.items():
            if principal not in there:
                wanting.stored_at_s = _NEVER_S

    async def _remove(self, principal: Principal) -> None:
        entry = await self._bucket.read(_key(principal))
        found = _waiting_of(entry)
        if found is None or found.engine != self._engine_id:
            return  # another engine looks after the user by now
        try:
            await self._bucket.delete(entry.key, entry.revision)
        except WrongLastSequence:
            return

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


def _key(principal: Principal) -> str:
    return f"{_USERS}.{principal.ukey}"


def _hash(tenant: str) -> str:
    return blake2b(tenant.encode(), digest_size=12).hexdigest()


def _waiting_of(entry: KvEntry) -> Waiting | None:
    """Who waits by an entry of the bucket; None: nobody."""
    said = _said(entry) if entry.key.startswith(f"{_USERS}.") else {}
    try:
        principal = Principal(said["tenant"], said["user"])
        return Waiting(principal, said["engine"], int(said["ticket"]) or entry.revision)
    except (KeyError, ValueError):
        return None


def _said(entry: KvEntry) -> Mapping[str, str]:
    """What an entry says; nothing, if another version wrote it so that it is not understood here."""
    try:
        said = orjson.loads(entry.value or b"{}")
    except ValueError:
        return {}
    return {key: str(value) for key, value in said.items()} if isinstance(said, dict) else {}
