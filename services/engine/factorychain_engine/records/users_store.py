"""The user records in storage: one compare-and-set a change.

Invariant: a record is only ever replaced by one that was made from exactly the revision which it
replaces. The cache makes a start cheaper, never wrong: what is written from a cached record fails
if anybody has written since, and a refusal is never given from the cache. Within this process the
changes of one user take turns, which keeps them from failing for one another. What is remembered
beside a record (who left a thread last) holds for exactly its revision. What was known of a record is
set aside, not forgotten, when it turns out to be another one now, until it is certain that storage has
lost none: if it has, nobody but this process may know who waited.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from weakref import WeakValueDictionary

from factorychain._core.ids import Principal
from factorychain._core.kv import KvBucket
from factorychain._core.logging import get_logger
from factorychain._core.stored import WrongLastSequence
from factorychain_engine.admission.last_known import LastKnown
from factorychain_engine.admission.record import UserRecord
from factorychain_engine.records import user_json
from factorychain_engine.remembered import Remembered

log = get_logger(__name__)

CACHED_USERS: Final = 4096
KEPT_THREADS: Final = 32


@dataclass(frozen=True, slots=True)
class Versioned:
    """A record and the revision that replaces it must name; 0: nothing is stored."""

    record: UserRecord
    revision: int
    last_runs: Mapping[str, str] = field(default_factory=dict)
    """By thread, the run that left its place last; of threads that this process saw one leave, and
    every change of the record since.
    """
    asked_at_s: float = 0.0
    """When storage was asked, by the loop's clock: it was so then, or later."""


@dataclass(frozen=True, slots=True)
class _Aside:
    """What was known of one user's record."""

    principal: Principal
    known: LastKnown

    @classmethod
    def of(cls, found: Versioned) -> _Aside:
        record = found.record
        return cls(Principal(record.tenant, record.user), LastKnown.of(record))


class UsersStore:
    """Records of users."""

    def __init__(self, bucket: KvBucket) -> None:
        self._bucket = bucket
        self._cache: Remembered[Versioned] = Remembered(CACHED_USERS)
        # Known before what is known now: since the last look at storage, and since the one before.
        self._aside: Remembered[_Aside] = Remembered(CACHED_USERS)
        self._aside_before: Remembered[_Aside] = Remembered(CACHED_USERS)
        self.on_vanished: Callable[[], None] = _unheard
        """Called when one is found to be gone."""
        # A turn exists as long as somebody holds it or waits for it.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def cached(self, principal: Principal) -> Versioned | None:
        """What this process has read or written last, if it still remembers."""
        known = self._cache.get(principal.ukey)
        if known is None or known.record.tenant != principal.tenant:
            return None
        return known if known.record.user == principal.user else None

    def turn(self, principal: Principal) -> asyncio.Lock:
        """Held while a change of the user's record is made up and stored. `change` takes it itself."""
        turn = self._turns.get(principal.ukey)
        if turn is None:
            turn = self._turns[principal.ukey] = asyncio.Lock()
        return turn

    async def read(self, principal: Principal) -> Versioned:
        """The record as the leader has it.

        Raises:
            NatsUnavailable: storage does not answer.
            ForeignRecord: the record is another user's or unreadable.
        """
        asked_at_s = asyncio.get_running_loop().time()
        before = self._cache.get(principal.ukey)
        entry = await self._bucket.read(principal.ukey)
        if before is not None and before.revision and not entry.revision:
            self._note_vanished(principal, before)
        elif before is not None and entry.revision > before.revision:
            self._set_aside(principal, before)
        record = user_json.decode_for(principal, entry.value)
        found = Versioned(record, entry.revision, asked_at_s=asked_at_s)
        self._remember(principal, found)
        return found

    async def replace(
        self, principal: Principal, known: Versioned, record: UserRecord
    ) -> Versioned:
        """Store `record` in the place of exactly `known`.

        Raises:
            WrongLastSequence: somebody has written since; nothing is stored.
            NatsUnavailable: no answer; with `sent` it may be stored.
        """
        asked_at_s = asyncio.get_running_loop().time()
        try:
            revision = await self._bucket.update(
                principal.ukey, user_json.encode(record), known.revision
            )
        except BaseException as error:
            self._cache.forget(principal.ukey)
            self._set_aside(principal, known)
            # One that is earlier than known may be a new leader's who is behind: a look will tell.
            if known.revision and isinstance(error, WrongLastSequence) and error.actual == 0:
                self._note_vanished(principal, known)
            raise
        stored = Versioned(record, revision, _last_runs(known, record), asked_at_s)
        self._remember(principal, stored)
        return stored

    async def change(
        self, principal: Principal, change: Callable[[UserRecord], UserRecord]
    ) -> UserRecord:
        """Apply a change to whatever the record is now; a change that changes nothing writes nothing.

        Raises:
            NatsUnavailable: no answer; with `sent` the change may be stored. Repeat it if it is one
                that does no harm twice.
        """
        async with self.turn(principal):
            return await self._change(principal, change)

    async def _change(
        self, principal: Principal, change: Callable[[UserRecord], UserRecord]
    ) -> UserRecord:
        known = self.cached(principal) or await self.read(principal)
        while True:
            wanted = change(known.record)
            if wanted == known.record:
                # That there is nothing to do is concluded only from what is stored now.
                fresh = await self.read(principal)
                if fresh.revision == known.revision:
                    return fresh.record
                known = fresh
                continue
            try:
                return (await self.replace(principal, known, wanted)).record
            except WrongLastSequence:
                known = await self.read(principal)

    def remembered(self) -> list[tuple[Principal, UserRecord]]:
        """Every record that this process still remembers; it may be outdated."""
        records = [each.record for each in self._cache.values()]
        return [
            (Principal(each.tenant, each.user), each)
            for each in records
            if each.active or each.queue
        ]

    def confirmed(self) -> None:
        """Storage has been looked at, and has lost nothing: what was set aside before the look before
        this one is of no use any more.
        """
        self._aside_before = self._aside
        self._aside = Remembered(CACHED_USERS)

    def forget_all(self) -> dict[Principal, LastKnown]:
        """Storage has lost the records: forget what this process knows of them, and return it."""
        last: dict[Principal, LastKnown] = {}
        aside = [*self._aside_before.values(), *self._aside.values()]
        for each in [*aside, *map(_Aside.of, self._cache.values())]:
            before = last.get(each.principal)
            last[each.principal] = each.known if before is None else before.then(each.known)
        for remembered in (self._aside_before, self._aside, self._cache):
            remembered.clear()
        return last

    async def scan(self) -> AsyncIterator[tuple[Principal, UserRecord]]:
        """Every record, as some replica has it; one that cannot be read is reported and skipped."""
        async for entry in self._bucket.scan():
            if entry.value is None:
                continue
            try:
                record = user_json.decode(entry.value)
                principal = Principal(record.tenant, record.user)
            except (user_json.ForeignRecord, ValueError) as error:
                log.critical("the record of a user cannot be read", key=entry.key, error=str(error))
                continue
            yield principal, record

    def _note_vanished(self, principal: Principal, known: Versioned) -> None:
        """What was known to be stored is not, although storage never removes it by itself."""
        self._cache.forget(principal.ukey)
        self._set_aside(principal, known)
        self.on_vanished()

    def _set_aside(self, principal: Principal, known: Versioned) -> None:
        if not known.revision:
            return
        aside, before = _Aside.of(known), self._aside.get(principal.ukey)
        if before is not None and before.principal == aside.principal:
            aside = _Aside(aside.principal, before.known.then(aside.known))
        self._aside.put(principal.ukey, aside)

    def _remember(self, principal: Principal, found: Versioned) -> None:
        known = self._cache.get(principal.ukey)
        if known is not None and known.revision == found.revision:
            found = replace(known, asked_at_s=max(known.asked_at_s, found.asked_at_s))
        elif known is not None and known.revision > found.revision:
            return  # a read that began before our own last write
        self._cache.put(principal.ukey, found)


def _unheard() -> None:
    """Before anything is wired."""


def _last_runs(known: Versioned, record: UserRecord) -> Mapping[str, str]:
    """Who left each thread last, after `known` was replaced by `record`."""
    left = {each.thread: each.run for each in known.record.active if not record.find(each.run)}
    if not left:
        return known.last_runs
    last = {thread: run for thread, run in known.last_runs.items() if thread not in left}
    # One that is not counted did not run in the place that it leaves: it was refused, or a repeated
    # start whose run had ended before others came to the thread.
    if record.totals.runs - known.record.totals.runs == len(left):
        last.update(left)
    return dict([*last.items()][-KEPT_THREADS:])
