"""Two engines and one record: no change is lost, none is made twice, and no cache is believed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import cast

import pytest

from factorychain._core.kv import KvBucket
from factorychain._core.stored import KvEntry, NatsUnavailable, WrongLastSequence
from factorychain_engine.admission.last_known import Waiting
from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.record import (
    ActiveRun,
    Admitted,
    Decision,
    Full,
    Totals,
    UserRecord,
    admit,
    adopt,
    release,
    to_cancel,
)
from factorychain_engine.records import user_json
from factorychain_engine.records.users_store import UsersStore
from tests.token_samples import ADA
from tests.unit.engine.memory_bucket import MemoryBucket

LIMIT = 2
QUEUED = QueuedRun("r9", "t9", "a", "0" * 32, "k9", 1.0, 0, 0, 1)


class Storage(MemoryBucket):
    """Can be away, and can keep an answer to itself for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.holds: asyncio.Event | None = None
        self.held = asyncio.Event()

    async def read(self, key: str) -> KvEntry:
        self._check()
        found = await super().read(key)
        if self.holds is not None:
            holds, self.holds = self.holds, None
            self.held.set()
            await holds.wait()
        return found

    async def update(self, key: str, value: bytes, revision: int) -> int:
        self._check()
        await asyncio.sleep(0)  # others have their turn while it is stored
        return await super().update(key, value, revision)

    def _check(self) -> None:
        if self.away:
            raise NatsUnavailable("away", sent=False)

    def write_elsewhere(self) -> None:
        """Another engine stores the same again."""
        self._seq += 1
        self.entries[ADA.ukey] = replace(self.entries[ADA.ukey], revision=self._seq)

    def lose_everything(self) -> None:
        self.entries.clear()

    @property
    def record(self) -> UserRecord:
        value = self.entries[ADA.ukey].value
        assert value is not None
        return user_json.decode(value)


@pytest.fixture
def storage() -> Storage:
    return Storage()


@pytest.fixture
def one(storage: Storage) -> UsersStore:
    return engine(storage)


@pytest.fixture
def other(storage: Storage) -> UsersStore:
    return engine(storage)


def engine(storage: Storage) -> UsersStore:
    """What one engine process knows of the records."""
    return UsersStore(cast(KvBucket, storage))


def entry(run: str, owner: str = "e1") -> ActiveRun:
    return ActiveRun(run, f"t-{run}", "a", "0" * 32, owner, 1.0, 301.0, 0, 0, 1)


def taking(*runs: str, owner: str = "e1") -> Callable[[UserRecord], UserRecord]:
    """Places for runs, however many have one."""
    entries = tuple(entry(each, owner) for each in runs)
    return lambda record: replace(record, active=(*record.active, *entries))


def freeing(run: str, used: Totals = Totals(runs=1)) -> Callable[[UserRecord], UserRecord]:
    return partial(release, entry=entry(run), used=used)


def waiting(*queue: QueuedRun) -> Callable[[UserRecord], UserRecord]:
    """These wait for places, and no others."""
    return lambda record: replace(record, queue=queue, queue_owner="e1" if queue else "")


async def start(users: UsersStore, run: str) -> Decision:
    """As a start decides and stores: from what is known, and again from what is stored if it was not."""
    known = users.cached(ADA) or await users.read(ADA)
    while True:
        decision = admit(known.record, entry(run), LIMIT)
        if not isinstance(decision, Admitted):
            return decision
        try:
            await users.replace(ADA, known, decision.record(entry(run)))
        except WrongLastSequence:
            known = await users.read(ADA)
            continue
        return decision


# --- a change -------------------------------------------------------------------------------


async def test_what_a_stale_cache_has_nothing_to_do_for_is_done_in_storage(
    one: UsersStore, other: UsersStore, storage: Storage
) -> None:
    await one.change(ADA, taking("r1"))
    await other.change(ADA, taking("r2"))
    cached = one.cached(ADA)
    assert cached is not None
    assert cached.record.find("r2") is None
    freed = await one.change(ADA, freeing("r2"))
    assert [each.run for each in storage.record.active] == ["r1"]
    assert freed == storage.record
    assert freed.totals == Totals(runs=1)


async def test_a_mark_that_the_cache_has_and_storage_has_not_is_made(
    one: UsersStore, other: UsersStore, storage: Storage
) -> None:
    """The place was freed and taken again since, by a repeated start."""
    cancelling = partial(to_cancel, entry=entry("r1"), reason="USER")
    await one.change(ADA, taking("r1"))
    await one.change(ADA, cancelling)
    await other.change(ADA, freeing("r1"))
    await other.change(ADA, taking("r1"))
    assert [each.cancel for each in storage.record.active] == [""]
    await one.change(ADA, cancelling)
    assert [each.cancel for each in storage.record.active] == ["USER"]


async def test_a_change_that_another_engine_was_faster_than_is_made_of_what_is_stored_then(
    one: UsersStore, other: UsersStore, storage: Storage
) -> None:
    await one.change(ADA, taking("r1", "r2"))
    await other.change(ADA, freeing("r1"))
    seen: list[int] = []

    def mark(record: UserRecord) -> UserRecord:
        seen.append(len(record.active))
        return to_cancel(record, entry("r2"), "USER")

    changed = await one.change(ADA, mark)
    assert seen == [2, 1]
    assert [(each.run, each.cancel) for each in storage.record.active] == [("r2", "USER")]
    assert changed == storage.record


async def test_a_change_is_made_as_often_as_others_are_faster(
    one: UsersStore, other: UsersStore, storage: Storage
) -> None:
    await one.change(ADA, taking("r1"))
    tries = 0

    def mark(record: UserRecord) -> UserRecord:
        nonlocal tries
        tries += 1
        if tries <= 3:
            storage.write_elsewhere()
        return to_cancel(record, entry("r1"), "USER")

    await one.change(ADA, mark)
    assert tries == 4
    assert [each.cancel for each in storage.record.active] == ["USER"]


async def test_nothing_is_written_when_nothing_changes(one: UsersStore, storage: Storage) -> None:
    await one.change(ADA, taking("r1"))
    writes = storage.writes
    assert await one.change(ADA, freeing("r2")) == storage.record
    assert storage.writes == writes


async def test_changes_of_one_user_here_do_not_fail_for_one_another(
    one: UsersStore, storage: Storage
) -> None:
    runs = [f"r{number}" for number in range(20)]
    await asyncio.gather(*(one.change(ADA, taking(run)) for run in runs))
    assert sorted(each.run for each in storage.record.active) == sorted(runs)
    assert storage.writes == len(runs)


async def test_changes_of_several_engines_at_once_are_all_made(storage: Storage) -> None:
    engines = [engine(storage) for _ in range(4)]
    runs = [f"r{number}" for number in range(20)]
    changes = (engines[number % 4].change(ADA, taking(run)) for number, run in enumerate(runs))
    await asyncio.gather(*changes)
    assert sorted(each.run for each in storage.record.active) == sorted(runs)
    await asyncio.gather(*(each.change(ADA, freeing(run)) for run in runs for each in engines))
    assert storage.record.active == ()
    assert storage.record.totals == Totals(runs=len(runs)), "a place was freed twice"


async def test_a_change_without_storage_says_so_and_changes_nothing(
    one: UsersStore, storage: Storage
) -> None:
    await one.change(ADA, taking("r1"))
    storage.away = True
    for change in (freeing("r1"), freeing("r2")):
        with pytest.raises(NatsUnavailable):
            await one.change(ADA, change)
    storage.away = False
    assert [each.run for each in storage.record.active] == ["r1"]


async def test_a_change_whose_answer_was_lost_is_not_believed_and_may_be_repeated(
    one: UsersStore, storage: Storage
) -> None:
    await one.change(ADA, taking("r1"))
    storage.lost_answers = 1
    with pytest.raises(NatsUnavailable) as lost:
        await one.change(ADA, freeing("r1"))
    assert lost.value.sent
    assert one.cached(ADA) is None
    freed = await one.change(ADA, freeing("r1"))
    assert (freed.active, freed.totals) == ((), Totals(runs=1)), "counted twice"
    assert storage.writes == 2


# --- what rests on it -----------------------------------------------------------------------


async def test_engines_with_old_caches_keep_the_limit(storage: Storage) -> None:
    engines = [engine(storage) for _ in range(4)]
    for each in engines:
        await each.read(ADA)
    decisions = await asyncio.gather(
        *(start(each, f"r{number}") for number, each in enumerate(engines))
    )
    assert [isinstance(each, Full) for each in decisions].count(True) == len(engines) - LIMIT
    assert len(storage.record.active) == LIMIT


async def test_a_run_of_an_engine_that_is_gone_is_adopted_once(storage: Storage) -> None:
    engines = [engine(storage) for _ in range(4)]
    await engines[0].change(ADA, taking("r1", owner="gone"))
    for each in engines:
        await each.read(ADA)
    found = await asyncio.gather(
        *(
            each.change(ADA, partial(adopt, gone={"gone"}, new_owner=f"e{number}"))
            for number, each in enumerate(engines)
        )
    )
    (adopted,) = storage.record.active
    assert adopted.adoptions == 1
    assert found == [storage.record] * 4, "all know who has it"


# --- what is known --------------------------------------------------------------------------


async def test_what_was_replaced_since_it_was_read_stays(
    one: UsersStore, other: UsersStore, storage: Storage
) -> None:
    known = await one.read(ADA)
    await other.change(ADA, taking("r1"))
    with pytest.raises(WrongLastSequence):
        await one.replace(ADA, known, taking("r2")(known.record))
    assert [each.run for each in storage.record.active] == ["r1"]
    assert one.cached(ADA) is None


async def test_a_read_that_is_answered_late_does_not_bring_back_what_was_before(
    one: UsersStore, storage: Storage
) -> None:
    await one.change(ADA, taking("r1"))
    storage.holds = late = asyncio.Event()
    reading = asyncio.create_task(one.read(ADA))
    await storage.held.wait()
    await one.change(ADA, taking("r2"))
    late.set()
    assert len((await reading).record.active) == 1
    cached = one.cached(ADA)
    assert cached is not None
    assert cached.record == storage.record


async def test_it_is_known_which_run_left_a_thread_last_as_long_as_nobody_else_has_written(
    one: UsersStore, other: UsersStore
) -> None:
    await one.change(ADA, taking("r1", "r2"))
    await one.change(ADA, freeing("r1"))
    await one.change(ADA, freeing("r2", Totals()))
    cached = one.cached(ADA)
    assert cached is not None
    assert cached.last_runs == {"t-r1": "r1"}, "one that is not counted did not run there"
    await other.change(ADA, taking("r3"))
    assert (await one.read(ADA)).last_runs == {}


# --- storage that loses records -------------------------------------------------------------


async def test_a_record_that_is_gone_is_reported_and_what_was_known_is_kept(
    one: UsersStore, storage: Storage
) -> None:
    losses: list[str] = []
    one.on_vanished = lambda: losses.append("lost")
    await one.change(ADA, waiting(QUEUED))
    storage.lose_everything()
    assert (await one.read(ADA)).record == UserRecord("acme", "ada")
    assert losses == ["lost"]
    known = one.forget_all()[ADA]
    assert known.waiting == {"r9": Waiting(QUEUED, "e1")}
    assert one.cached(ADA) is None


async def test_a_write_over_a_record_that_is_gone_reports_it(
    one: UsersStore, storage: Storage
) -> None:
    losses: list[str] = []
    one.on_vanished = lambda: losses.append("lost")
    await one.change(ADA, taking("r1"))
    storage.lose_everything()
    await one.change(ADA, taking("r2"))
    assert losses == ["lost"]
    assert [each.run for each in storage.record.active] == ["r2"]
    assert set(one.forget_all()[ADA].cancels) == {"r1", "r2"}


async def test_what_is_first_read_as_not_there_was_not_lost(one: UsersStore) -> None:
    losses: list[str] = []
    one.on_vanished = lambda: losses.append("lost")
    await one.read(ADA)
    await one.read(ADA)
    await one.change(ADA, taking("r1"))
    assert losses == []


async def test_what_was_set_aside_is_kept_over_one_look_at_storage(
    one: UsersStore, other: UsersStore
) -> None:
    await one.change(ADA, waiting(QUEUED))
    await other.change(ADA, waiting())
    await one.read(ADA)
    one.confirmed()
    assert "r9" in one.forget_all()[ADA].waiting


async def test_what_is_set_aside_later_is_added_to_what_was_before(
    one: UsersStore, other: UsersStore
) -> None:
    later = replace(QUEUED, run="r8", thread="t8")
    for queue in ((QUEUED,), (later,), ()):
        await other.change(ADA, waiting(*queue))
        await one.read(ADA)
    assert set(one.forget_all()[ADA].waiting) == {"r8", "r9"}


async def test_what_was_set_aside_before_two_looks_is_forgotten(
    one: UsersStore, other: UsersStore
) -> None:
    await one.change(ADA, waiting(QUEUED))
    await other.change(ADA, waiting())
    await one.read(ADA)
    one.confirmed()
    one.confirmed()
    assert one.forget_all()[ADA].waiting == {}


async def test_a_record_that_cannot_be_read_hides_no_other(
    one: UsersStore, storage: Storage
) -> None:
    storage.entries["odd"] = KvEntry("odd", b"{}", 1)
    storage.entries["removed"] = KvEntry("removed", None, 2)
    await one.change(ADA, taking("r1"))
    assert [principal async for principal, _ in one.scan()] == [ADA]
