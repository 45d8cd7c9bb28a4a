"""Who waits for room stands in the bucket with a ticket, and keeps it until they have room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from factorychain._core.ids import Principal
from factorychain._core.stored import KvEntry, NatsUnavailable, StorageRefused, WrongLastSequence
from factorychain.errors import Capacity
from factorychain_engine.queue import turns as turns_module
from factorychain_engine.queue.turns import Turns
from factorychain_engine.queue.waiting_list import RENEW_S, RENEWALS_A_WRITE, WaitingList
from tests.waiting import until_true

ADA, BOB, EVE = Principal("acme", "ada"), Principal("acme", "bob"), Principal("other", "eve")


class Bucket:
    """What a bucket does that nobody else writes to at the same moment."""

    def __init__(self) -> None:
        self.entries: dict[str, KvEntry] = {}
        self.writes = 0
        self.away = False
        self.broken = False
        self.slow = False
        self.is_read = asyncio.Event()
        self.behind: list[KvEntry] | None = None
        """What a replica that does not have the latest writes yet knows."""
        self.reads = 0
        self.on_put: Callable[[str], None] = lambda _: None
        self.refused = 0

    async def read(self, key: str) -> KvEntry:
        return self.entries.get(key, KvEntry(key, None, 0))

    async def put(self, key: str, value: bytes) -> int:
        if self.away:
            self.refused += 1
            raise NatsUnavailable("put", sent=False)
        self.writes += 1
        self.entries[key] = KvEntry(key, value, self.writes)
        revision = self.writes
        self.on_put(key)
        return revision

    async def update(self, key: str, value: bytes, revision: int) -> int:
        if (await self.read(key)).revision != revision:
            raise WrongLastSequence(key, revision, None)
        return await self.put(key, value)

    async def delete(self, key: str, revision: int | None = None) -> int:
        if revision not in (None, (await self.read(key)).revision):
            raise WrongLastSequence(key, revision or 0, None)
        self.writes += 1
        self.entries.pop(key, None)
        return self.writes

    async def list(self) -> list[KvEntry]:
        if self.broken:
            self.refused += 1
            raise StorageRefused("list", 403, "not permitted")
        entries = list(self.entries.values() if self.behind is None else self.behind)
        self.reads += 1
        while self.slow:
            self.is_read.set()
            await asyncio.sleep(0.001)
        return entries


class Engine:
    """One engine's part, with agents that have as much room as a test says."""

    def __init__(self, bucket: Bucket, name: str = "e1") -> None:
        made: Any = bucket
        self.room: int | None = 0
        self.own_room: int | None = None
        self.turn: list[Principal] = []
        self.turns = Turns(
            name,
            made,
            ready=self._ready,
            room=lambda: self.room,
            own_room=lambda: self.own_room,
            look=self.turn.append,
        )

    async def _ready(self) -> None:
        if self.room == 0:
            raise Capacity

    def line(self) -> list[Principal]:
        return [each.principal for each in self.turns.line]

    async def until_line(self, *principals: Principal) -> None:
        await until_true(lambda: self.line() == list(principals))

    async def join(self, *principals: Principal) -> None:
        """One after the other."""
        for each in principals:
            self.turns.join(each)
            await self._until_waits(each)

    async def _until_waits(self, principal: Principal) -> None:
        await until_true(lambda: principal in self.line())


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "LOOK_S", 0.01)


async def test_nothing_is_written_or_refused_while_there_is_room() -> None:
    bucket = Bucket()
    engine = Engine(bucket)
    engine.room = 10
    await engine.turns.start()
    await engine.turns.ready(ADA)
    await asyncio.sleep(0)
    assert bucket.writes == 0
    await engine.turns.stop()


async def test_turns_are_given_by_tickets_as_there_is_room() -> None:
    engine = Engine(Bucket())
    await engine.turns.start()
    await engine.join(ADA, BOB, EVE)
    assert engine.line() == [ADA, EVE, BOB]
    assert engine.turn == []
    engine.room = 2
    await until_true(lambda: engine.turn == [ADA, EVE])
    await engine.turns.ready(ADA)
    with pytest.raises(Capacity):
        await engine.turns.ready(BOB)
    engine.turns.began(ADA)
    engine.turns.leave(EVE)
    await engine.until_line(BOB, ADA)  # who had room goes behind the others
    await engine.turns.stop()


async def test_who_is_refused_after_all_keeps_the_ticket() -> None:
    engine = Engine(Bucket())
    await engine.turns.start()
    await engine.join(ADA, BOB)
    engine.turns.began(ADA)
    await engine.until_line(BOB, ADA)
    engine.turns.refused(ADA)
    await engine.until_line(ADA, BOB)
    await engine.turns.stop()


async def test_who_is_refused_keeps_the_ticket_also_if_nothing_else_of_theirs_waits() -> None:
    engine = Engine(Bucket())
    await engine.turns.start()
    await engine.join(EVE, ADA, BOB)
    before = engine.turns.line
    assert [each.principal for each in before] == [EVE, ADA, BOB]
    engine.turns.began(EVE)
    engine.turns.leave(EVE)
    await engine.until_line(ADA, BOB)
    engine.turns.refused(EVE)
    await until_true(lambda: engine.turns.line == before)
    # The tenant's turn was taken back, too: as nobody was served, the next new one comes last.
    last = Principal("other", "last")
    await engine.join(last)
    assert engine.line() == [EVE, ADA, last, BOB]
    await engine.turns.stop()


async def test_a_tenant_that_has_got_room_meanwhile_does_not_get_its_turn_back() -> None:
    bucket = Bucket()
    engine = Engine(bucket)
    await engine.turns.start()
    await engine.join(ADA, BOB, EVE)
    for each in (ADA, BOB, ADA, EVE, BOB):
        writes = bucket.writes
        engine.turns.began(each)
        await until_true(lambda writes=writes: bucket.writes >= writes + 2)  # type: ignore[misc]
    engine.turns.refused(ADA)
    reads = bucket.reads
    await until_true(lambda: bucket.reads > reads + 2)
    assert engine.line() == [EVE, ADA, BOB]
    await engine.turns.stop()


async def test_who_is_refused_while_another_ticket_is_drawn_has_that_of_before() -> None:
    bucket = Bucket()
    engine = Engine(bucket)
    await engine.turns.start()
    await engine.join(ADA, BOB)
    before = engine.turns.line

    def refuse(key: str) -> None:
        if key == f"u.{ADA.ukey}":
            bucket.on_put = lambda _: None
            engine.turns.refused(ADA)

    bucket.on_put = refuse
    writes = bucket.writes
    engine.turns.began(ADA)
    await until_true(lambda: bucket.writes > writes + 2)
    await until_true(lambda: engine.turns.line == before)
    await engine.turns.stop()


async def test_nobody_is_granted_twice_by_a_line_that_was_read_before_they_began() -> None:
    bucket = Bucket()
    engine = Engine(bucket)
    await engine.turns.start()
    await engine.join(ADA, BOB)
    engine.room = 1
    await until_true(lambda: engine.turn == [ADA])
    bucket.slow = True
    bucket.is_read.clear()
    engine.turns.freed()
    await bucket.is_read.wait()
    engine.turns.began(ADA)
    bucket.slow = False
    await until_true(lambda: engine.turn[1:] == [BOB])
    await engine.turns.stop()


async def test_a_line_that_is_behind_gives_nobody_a_second_turn() -> None:
    bucket = Bucket()
    engine = Engine(bucket)
    await engine.turns.start()
    await engine.join(ADA, BOB)
    engine.room = 1
    await until_true(lambda: engine.turn == [ADA])
    bucket.behind = list(bucket.entries.values())
    writes = bucket.writes
    engine.turns.began(ADA)
    await until_true(lambda: bucket.writes >= writes + 2)
    reads = bucket.reads
    await until_true(lambda: bucket.reads > reads + 2)
    assert engine.turn == [ADA]
    bucket.behind = None
    await until_true(lambda: engine.turn == [ADA, BOB])
    await engine.turns.stop()


async def test_who_waits_is_not_overtaken_before_the_line_is_read_for_the_first_time() -> None:
    engine = Engine(Bucket())
    engine.turns.join(ADA)
    engine.room = 1
    assert not engine.turns.may_begin(ADA), "there may be others, who have waited longer"
    assert not engine.turns.may_begin(EVE)


async def test_an_engine_that_is_full_refuses_and_gives_as_many_turns_as_it_has_places() -> None:
    engine = Engine(Bucket())
    engine.room, engine.own_room = 9, 0
    await engine.turns.start()
    with pytest.raises(Capacity) as refused:
        await engine.turns.ready(EVE)
    assert refused.value.retry_after_s
    await engine.join(ADA, EVE, BOB)
    assert engine.turn == []
    engine.own_room = 2
    await until_true(lambda: engine.turn == [ADA, EVE])
    assert engine.turns.may_begin(EVE)
    assert not engine.turns.may_begin(BOB), "the places are others'"
    engine.own_room = 0
    assert not engine.turns.may_begin(EVE), "somebody else was faster"
    engine.own_room = 4
    await until_true(lambda: engine.turn == [ADA, EVE, BOB])
    await engine.turns.ready(Principal("new", "now"))
    engine.own_room = 3
    with pytest.raises(Capacity):
        await engine.turns.ready(Principal("new", "now"))
    await engine.turns.stop()


async def test_a_full_engine_holds_up_nobody_at_another_and_its_users_keep_their_tickets() -> None:
    bucket = Bucket()
    full, other = Engine(bucket, "full"), Engine(bucket, "other")
    await full.turns.start()
    await other.turns.start()
    await full.join(ADA)
    await other.join(BOB)
    await other.until_line(ADA, BOB)
    full.own_room = 0
    await other.until_line(BOB)
    await full.until_line(ADA, BOB)
    full.room = other.room = 1
    await until_true(lambda: other.turn == [BOB])
    assert full.turn == []
    full.own_room = 1
    await other.until_line(ADA, BOB)
    await until_true(lambda: full.turn == [ADA])
    full.turns.leave(ADA)
    full.own_room = 0
    other.turns.leave(BOB)
    await until_true(lambda: not any(key.startswith(("u.", "x.")) for key in bucket.entries))
    await full.turns.stop()
    await other.turns.stop()


async def test_who_comes_back_at_once_has_not_left() -> None:
    bucket = Bucket()
    engine = Engine(bucket)
    await engine.turns.start()
    await engine.join(ADA, BOB)
    ticket = engine.turns.line[0].ticket
    writes = bucket.writes
    engine.turns.leave(ADA)
    engine.turns.join(ADA)
    await until_true(lambda: bucket.writes > writes)
    await engine.until_line(ADA, BOB)
    assert engine.turns.line[0].ticket == ticket
    await engine.turns.stop()


async def test_more_room_than_wait_for_it_is_anybodys() -> None:
    engine = Engine(Bucket())
    await engine.turns.start()
    await engine.join(ADA)
    engine.room = 2
    await engine.turns.ready(EVE)
    engine.room = None  # what is not known may be theirs
    with pytest.raises(Capacity):
        await engine.turns.ready(EVE)
    await engine.turns.stop()


async def test_an_engine_whose_storage_is_away_goes_on_when_it_is_back() -> None:
    bucket = Bucket()
    engine = Engine(bucket)
    await engine.turns.start()
    bucket.away = True
    engine.turns.join(ADA)
    await until_true(lambda: bucket.refused > 1)
    assert engine.line() == []
    bucket.away = False
    await engine.until_line(ADA)
    assert engine.turns.healthy
    await engine.turns.stop()


async def test_many_who_wait_are_renewed_a_few_at_a_time_and_new_ones_at_once() -> None:
    bucket = Bucket()
    made: Any = bucket
    waiting = WaitingList("e1", made)
    users = [Principal("acme", f"u{number}") for number in range(RENEWALS_A_WRITE + 20)]

    async def written(now_s: float) -> int:
        before = bucket.writes
        await waiting.write(now_s, full=False)
        return bucket.writes - before

    for each in users:
        waiting.join(each)
    assert await written(1.0) == len(users)
    assert await written(2.0) == 0
    waiting.join(EVE)
    assert await written(2.0 + RENEW_S) == RENEWALS_A_WRITE + 1
    assert await written(2.0 + RENEW_S) == 20
    assert [each.principal for each in await waiting.read()] == [users[0], EVE, *users[1:]]


async def test_turns_go_on_after_whatever_goes_wrong() -> None:
    bucket = Bucket()
    engine = Engine(bucket)
    await engine.turns.start()
    bucket.broken = True
    engine.turns.join(ADA)
    await until_true(lambda: bucket.refused > 1)
    bucket.broken = False
    await engine.until_line(ADA)
    assert engine.turns.healthy
    await engine.turns.stop()


async def test_a_line_that_was_not_read_for_long_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(Bucket())
    await engine.turns.start()
    await engine.join(ADA)
    await engine.turns.stop()
    engine.room = 1
    assert not engine.turns.may_begin(EVE)
    monkeypatch.setattr(turns_module, "STALE_AFTER_S", -1.0)
    assert engine.turns.may_begin(EVE)


async def test_what_another_version_has_written_is_passed_over() -> None:
    bucket = Bucket()
    await bucket.put(f"u.{EVE.ukey}", b"[1]")
    await bucket.put("t.x", b"{}")
    engine = Engine(bucket)
    await engine.turns.start()
    await engine.join(ADA)
    assert engine.line() == [ADA]
    assert engine.turns.healthy
    await engine.turns.stop()


async def test_another_engine_goes_on_with_the_ticket_of_one_that_is_gone() -> None:
    bucket = Bucket()
    gone, other = Engine(bucket, "gone"), Engine(bucket, "other")
    await gone.turns.start()
    await other.turns.start()
    await gone.join(ADA)
    await other.join(BOB)
    await gone.turns.stop()
    before = {each.principal: each.ticket for each in other.turns.line}
    other.turns.join(ADA)
    await until_true(lambda: {each.engine for each in other.turns.line} == {"other"})
    assert {each.principal: each.ticket for each in other.turns.line} == before
    assert other.line() == [ADA, BOB]
    await other.turns.stop()


async def test_an_engine_that_leaves_a_user_to_another_removes_nothing_of_them() -> None:
    bucket = Bucket()
    one, other = Engine(bucket, "one"), Engine(bucket, "other")
    await one.turns.start()
    await other.turns.start()
    await one.join(ADA)
    other.turns.join(ADA)
    await until_true(lambda: [each.engine for each in one.turns.line] == ["other"])
    writes = bucket.writes
    one.turns.leave(ADA)
    await one.join(BOB)  # after that
    assert bucket.writes == writes + 1
    del bucket.entries[f"u.{ADA.ukey}"]  # as one of an older version might
    ticket = other.turns.line[0].ticket
    await other.until_line(ADA, BOB)
    await until_true(lambda: f"u.{ADA.ukey}" in bucket.entries)
    await other.until_line(ADA, BOB)
    assert other.turns.line[0].ticket == ticket
    await one.turns.stop()
    await other.turns.stop()
