"""Those who wait for room, at any engine, as a small bucket that all engines share.

Invariant: a user stands in it once, with the ticket that they drew when they began to wait or got room
last, whichever engine looks after them. It is written only while somebody waits, and an entry that nobody
renews goes by its age. Users whose engine is full itself hold up nobody at other engines, and keep their
tickets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import orjson

from factorychain._core.crash_points import crash_point
from factorychain._core.ids import Principal
from factorychain._core.kv import KvBucket
from factorychain._core.metrics import up_down_counter
from factorychain._core.stored import KvEntry, WrongLastSequence
from factorychain_engine.queue.fairness import Waiting, fair_order
from factorychain_engine.remembered import Remembered

_waiting = up_down_counter(
    "factorychain.engine.waiting_for_room", "Users of this engine who wait for room"
)

ENTRY_MAX_AGE_S: Final = 60.0
"""What an engine that is gone has left goes by then."""
RENEW_S: Final = 20.0
RENEWALS_A_WRITE: Final = 50
"""So that many who wait do not keep those whose turn it is."""
REMEMBERED_TICKETS: Final = 4096

_NEVER_S: Final = float("-inf")
_USERS: Final = "u"
_TENANTS: Final = "t"
_FULL: Final = "x"
"""Engines that cannot begin any run now."""


class WaitingList:
    """The list, and those of this engine who are to stand in it."""

    def __init__(self, engine_id: str, bucket: KvBucket) -> None:
        self._engine_id = engine_id
        self._bucket = bucket
        self._own: dict[Principal, _Wanting] = {}
        self._gone: set[Principal] = set()
        """Those of them who are to be removed."""
        self._tenants: dict[str, int] = {}
        """The tickets of tenants, as they were read last."""
        self._before: Remembered[_Served] = Remembered(REMEMBERED_TICKETS)
        self._to_take_back: list[tuple[str, _Served]] = []
        self._says_full = False
        self._said_full_at_s = _NEVER_S

    def __len__(self) -> int:
        """How many wait here."""
        return len(self._own) - len(self._gone)

    def __contains__(self, principal: Principal) -> bool:
        """Whether the user waits here."""
        return principal in self._own and principal not in self._gone

    @property
    def is_written(self) -> bool:
        """Whether nobody waits here, and the bucket says so."""
        return not (self._own or self._to_take_back or self._says_full)

    def is_so(self, waiting: Waiting) -> bool:
        """Whether what was read of a user of this engine still holds."""
        wanting = self._own.get(waiting.principal)
        if wanting is None or wanting.served or waiting.engine != self._engine_id:
            return False
        return waiting.principal in self and wanting.ticket == waiting.ticket

    # --- what is to be written --------------------------------------------------------------

    def join(self, principal: Principal) -> None:
        """Wait; who waits already keeps the ticket."""
        if principal not in self._own:
            self._own[principal] = _Wanting()
            _waiting.add(1)
        elif principal in self._gone:
            self._gone.discard(principal)
            self._own[principal].stored_at_s = _NEVER_S

    def leave(self, principal: Principal) -> None:
        """Wait no more, or not at this engine."""
        if principal in self._own:
            self._gone.add(principal)

    def served(self, principal: Principal) -> None:
        """The user has got room: another ticket is drawn, and one for the tenant."""
        wanting = self._own.get(principal)
        if wanting is not None:
            wanting.served = True

    def refused(self, principal: Principal) -> None:
        """There was no room after all: the user waits again, with the ticket of before, and the tenant."""
        self.join(principal)
        wanting = self._own[principal]
        if wanting.served:
            wanting.served = False
            return
        before = self._before.forget(principal.ukey)
        if before is not None:
            wanting.stand_again(before.ticket)
            self._to_take_back.append((principal.tenant, before))

    # --- the bucket -------------------------------------------------------------------------

    async def write(self, now_s: float, *, full: bool) -> None:
        """Bring the bucket to what is to be written; `now_s` by any clock that does not jump. `full`: this
        engine can begin no run now.

        Raises:
            NatsUnavailable: storage is away; to be called again.
        """
        await self._say_full(full and bool(self._own), now_s)
        while self._to_take_back:
            await self._take_back(*self._to_take_back[0])
            del self._to_take_back[0]
        renewals = 0
        for principal, wanting in list(self._own.items()):
            if wanting.served:
                await self._serve(principal, wanting)
            if principal in self._gone:
                await self._remove(principal)
                if principal in self._gone:  # it may have come back meanwhile
                    self._gone.discard(principal)
                    del self._own[principal]
                    _waiting.add(-1)
            elif wanting.stored_at_s == _NEVER_S:
                await self._put(principal, wanting, now_s)
            elif now_s - wanting.stored_at_s > RENEW_S and renewals < RENEWALS_A_WRITE:
                renewals += 1
                await self._put(principal, wanting, now_s)

    async def read(self) -> tuple[Waiting, ...]:
        """Who waits, in the order of their turns, without those of other engines that are full.

        Raises:
            NatsUnavailable: storage is away.
        """
        waiting: list[Waiting] = []
        served: dict[str, int] = {}
        full: set[str] = set()
        for entry in await self._bucket.list():
            found = _waiting_of(entry)
            if found is not None:
                waiting.append(found)
            elif entry.key.startswith(f"{_TENANTS}."):
                said = _said(entry)
                served[said.get("tenant", "")] = _ticket(said, entry)
            elif entry.key.startswith(f"{_FULL}."):
                full.add(entry.key.removeprefix(f"{_FULL}."))
        full.discard(self._engine_id)
        self._tenants = served
        self._note_missing({each.principal for each in waiting if each.engine == self._engine_id})
        return fair_order([each for each in waiting if each.engine not in full], served)

    def _note_missing(self, there: set[Principal]) -> None:
        """Another engine that looked after a user may have removed them as it left."""
        for principal, wanting in self._own.items():
            if principal not in there:
                wanting.stored_at_s = _NEVER_S

    async def _say_full(self, full: bool, now_s: float) -> None:
        """Have others begin the runs of their own users while this engine cannot begin those of its own."""
        key = f"{_FULL}.{self._engine_id}"
        if full and now_s - self._said_full_at_s > RENEW_S:
            self._says_full = True
            await self._bucket.put(key, b"{}")
            self._said_full_at_s = now_s
        elif self._says_full and not full:
            await self._bucket.delete(key)
            self._says_full, self._said_full_at_s = False, _NEVER_S

    async def _serve(self, principal: Principal, wanting: _Wanting) -> None:
        """Draw a ticket for the tenant; the user draws another one as they are stored next."""
        tenant = principal.tenant
        before = self._tenants.get(tenant, 0)
        revision = await self._bucket.put(_tenant_key(tenant), orjson.dumps({"tenant": tenant}))
        crash_point("engine.ticket.served")
        self._tenants[tenant] = revision
        served = _Served(wanting.ticket, before, revision)
        if wanting.served:
            self._before.put(principal.ukey, served)
            wanting.draw_another()
        else:  # it was refused meanwhile
            self._to_take_back.append((tenant, served))

    async def _take_back(self, tenant: str, served: _Served) -> None:
        """The tenant has the ticket of before, unless another of its users has got room since."""
        key, revision = _tenant_key(tenant), served.tenants_revision
        document = orjson.dumps({"tenant": tenant, "ticket": served.tenants_ticket})
        try:
            if served.tenants_ticket:
                await self._bucket.update(key, document, revision)
            else:
                await self._bucket.delete(key, revision)
        except WrongLastSequence:
            return

    async def _remove(self, principal: Principal) -> None:
        entry = await self._bucket.read(_key(principal))
        found = _waiting_of(entry)
        if found is None or found.engine != self._engine_id:
            return  # another engine looks after the user by now
        try:
            await self._bucket.delete(entry.key, entry.revision)
        except WrongLastSequence:
            return
        crash_point("engine.ticket.removed")

    async def _put(self, principal: Principal, wanting: _Wanting, now_s: float) -> None:
        """Stand in line; with the ticket that the user has, also one that another engine drew for them."""
        key = _key(principal)
        if wanting.is_new:
            found = _waiting_of(await self._bucket.read(key))
            wanting.is_new, wanting.ticket = False, 0 if found is None else found.ticket
        ticket = wanting.ticket
        document = {
            "tenant": principal.tenant,
            "user": principal.user,
            "engine": self._engine_id,
            "ticket": ticket,
        }
        crash_point("engine.ticket.storing")
        revision = await self._bucket.put(key, orjson.dumps(document))
        crash_point("engine.ticket.stored")
        if wanting.ticket == ticket:  # it may have got back the one of before meanwhile
            wanting.ticket, wanting.stored_at_s = ticket or revision, now_s


@dataclass(frozen=True, slots=True)
class _Served:
    """With which tickets a user stood whose run has got room."""

    ticket: int
    tenants_ticket: int
    """0: none."""
    tenants_revision: int
    """Under which the tenant has drawn the next one."""


class _Wanting:
    """A user of this engine who waits."""

    def __init__(self) -> None:
        self.is_new = True
        self.ticket = 0
        """0: to be drawn."""
        self.stored_at_s = _NEVER_S
        self.served = False

    def draw_another(self) -> None:
        """Go behind the others."""
        self.ticket, self.served, self.stored_at_s = 0, False, _NEVER_S

    def stand_again(self, ticket: int) -> None:
        """Stand where one stood before."""
        self.ticket, self.is_new, self.stored_at_s = ticket, False, _NEVER_S


def _key(principal: Principal) -> str:
    return f"{_USERS}.{principal.ukey}"


def _tenant_key(tenant: str) -> str:
    return f"{_TENANTS}.{blake2b(tenant.encode(), digest_size=12).hexdigest()}"


def _waiting_of(entry: KvEntry) -> Waiting | None:
    """Who waits by an entry of the bucket; None: nobody."""
    said = _said(entry) if entry.key.startswith(f"{_USERS}.") else {}
    try:
        principal = Principal(said["tenant"], said["user"])
        return Waiting(principal, said["engine"], int(said["ticket"]) or entry.revision)
    except (KeyError, ValueError):
        return None


def _ticket(said: Mapping[str, str], entry: KvEntry) -> int:
    """A ticket is the revision under which it was drawn; one that was given back is written down."""
    ticket = said.get("ticket", "")
    return (int(ticket) if ticket.isdecimal() else 0) or entry.revision


def _said(entry: KvEntry) -> Mapping[str, str]:
    """What an entry says; nothing, if another version wrote it so that it is not understood here."""
    try:
        said = orjson.loads(entry.value or b"{}")
    except ValueError:
        return {}
    return {key: str(value) for key, value in said.items()} if isinstance(said, dict) else {}
