"""What one pass of the clean-up takes for forgotten, and whom it takes for gone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from factorychain._core.ids import Principal
from factorychain._core.stored import NatsUnavailable
from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.record import ActiveRun, UserRecord
from factorychain_engine.ownership.cleanup import SWEEP_EVERY_S, CleanUp
from factorychain_engine.ownership.roll import EngineRoll
from factorychain_engine.places.factory import UNOWNED
from tests.token_samples import ADA

GRACE_S = 10.0
PASS_S = 3.0
ENTRY = ActiveRun("r1", "t1", "a", "0" * 32, "other", 1.0, 301.0, 0, 0, 1)
QUEUED = QueuedRun("r9", "t9", "a", "0" * 32, "k9", 1.0, 0, 0, 1)


class Around:
    """Storage and what else one engine has; each method is of the object that its caller wants."""

    def __init__(self, record: UserRecord) -> None:
        self.record = record
        self.now_s = 0.0
        self.healthy = True
        self.away: set[str] = set()
        self.present = ["me"]
        self.held: set[str] = set()
        self.starting: set[str] = set()
        self.has_queue = False
        self.knows = True
        self.adopted_runs: list[str] = []
        self.adopted_queues: list[UserRecord] = []

    # the heartbeat
    async def engines(self) -> list[str]:
        self._read("engines")
        return self.present

    # records
    async def scan(self) -> AsyncIterator[tuple[Principal, UserRecord]]:
        self._read("users")
        yield ADA, self.record

    def remembered(self) -> list[tuple[Principal, UserRecord]]:
        return [(ADA, self.record)] if self.knows else []

    async def change(self, _: Principal, change: Callable[[UserRecord], UserRecord]) -> UserRecord:
        self.record = change(self.record)
        return self.record

    def _read(self, bucket: str) -> None:
        if bucket in self.away:
            raise NatsUnavailable("away", sent=False)

    # runs and queues
    def tick(self) -> None: ...

    def look_at(self, *_: object) -> None: ...

    def is_starting(self, run: str) -> bool:
        return run in self.starting

    def find(self, _: Principal, run: str) -> object | None:
        return self if run in self.held else None

    def has(self, _: Principal) -> bool:
        return self.has_queue

    def adopted(self, _: Principal, record: UserRecord) -> None:
        self.has_queue = True
        self.adopted_queues.append(record)

    def adopt_run(self, _: Principal, entry: ActiveRun) -> None:
        self.held.add(entry.run)
        self.adopted_runs.append(entry.run)


class Looking:
    """One engine's clean-up, which looks whenever a test says so."""

    def __init__(self, record: UserRecord) -> None:
        self.around = Around(record)
        around = cast(Any, self.around)
        self.clean_up = CleanUp(
            engine_id="me",
            heartbeat=around,
            users=around,
            runs=around,
            adopt_run=self.around.adopt_run,
            queues=around,
            roll=EngineRoll("me", GRACE_S),
            interval_s=PASS_S,
            clock=lambda: self.around.now_s,
        )

    async def look(self, passes: int = 1) -> list[str]:
        """Pass after pass; which runs were adopted up to now."""
        for _ in range(passes):
            await self.clean_up.look_once()
            self.around.now_s += PASS_S
        return self.around.adopted_runs


async def after_a_sweep(record: UserRecord, knows: bool) -> Looking:
    """One that has looked through all records before there was this one, and remembers it or does so again."""
    looking = Looking(UserRecord("acme", "ada"))
    await looking.look()
    looking.around.record, looking.around.knows = record, knows
    if not knows:
        looking.clean_up.sweep_soon()
    return looking


@pytest.fixture
def looking() -> Looking:
    """At a run of an engine that has no heartbeat."""
    return Looking(UserRecord("acme", "ada", (ENTRY,)))


async def test_a_run_of_an_engine_that_is_missing_for_the_grace_is_adopted(
    looking: Looking,
) -> None:
    assert await looking.look(passes=4) == []
    assert await looking.look() == ["r1"]
    (entry,) = looking.around.record.active
    assert (entry.owner, entry.adoptions) == ("me", 1)


@pytest.mark.parametrize("bucket", ["engines", "users"])
async def test_nobody_is_given_up_within_the_grace_after_storage_did_not_answer(
    looking: Looking, bucket: str
) -> None:
    await looking.look(passes=4)
    looking.around.away = {bucket}
    await looking.look(passes=20)
    assert looking.clean_up.passes == 4
    assert not looking.clean_up.healthy
    looking.around.away = set()
    assert await looking.look(passes=4) == []
    assert await looking.look() == ["r1"]
    assert looking.clean_up.healthy


async def test_who_comes_back_after_an_outage_keeps_what_it_had(looking: Looking) -> None:
    await looking.look(passes=4)
    looking.around.away = {"engines"}
    await looking.look(passes=20)
    looking.around.away = set()
    await looking.look(passes=2)
    looking.around.present = ["me", "other"]
    assert await looking.look(passes=20) == []


async def test_nobody_is_given_up_by_who_cannot_show_that_it_lives(looking: Looking) -> None:
    looking.around.healthy = False
    assert await looking.look(passes=20) == []
    looking.around.healthy = True
    assert await looking.look(passes=3) == []
    assert await looking.look() == ["r1"]


@pytest.mark.parametrize("knows", [True, False])
@pytest.mark.parametrize("holds", ["nothing", "the run", "its start"])
async def test_an_own_place_that_nothing_here_holds_is_taken_up(knows: bool, holds: str) -> None:
    """Whether the record is remembered, or found when all are looked through."""
    looking = await after_a_sweep(UserRecord("acme", "ada", (replace(ENTRY, owner="me"),)), knows)
    if holds == "the run":
        looking.around.held = {"r1"}
    elif holds == "its start":
        looking.around.starting = {"r1"}
    assert await looking.look() == (["r1"] if holds == "nothing" else [])


@pytest.mark.parametrize("knows", [True, False])
@pytest.mark.parametrize(
    ("owner", "has_queue", "adopts"),
    [("me", False, True), ("me", True, False), ("other", False, False)],
)
async def test_a_queue_that_nothing_here_looks_after_is_taken_up(
    knows: bool, owner: str, has_queue: bool, adopts: bool
) -> None:
    record = UserRecord("acme", "ada", queue=(QUEUED,), queue_owner=owner)
    looking = await after_a_sweep(record, knows)
    looking.around.has_queue = has_queue
    looking.around.present = ["me", "other"]
    await looking.look()
    adopted = looking.around.adopted_queues
    assert bool(adopted) is adopts
    if adopts:
        assert [(each.queue, each.queue_owner) for each in adopted] == [((QUEUED,), "me")]


async def test_the_queue_of_an_engine_that_is_gone_is_taken_up() -> None:
    looking = Looking(UserRecord("acme", "ada", queue=(QUEUED,), queue_owner="other"))
    await looking.look(passes=5)
    assert looking.around.record.queue_owner == "me"
    assert looking.around.has_queue


async def test_all_records_are_looked_through_now_and_then_although_nobody_is_missing() -> None:
    looking = Looking(UserRecord("acme", "ada"))
    looking.around.knows = False
    await looking.look()
    looking.around.record = UserRecord("acme", "ada", (replace(ENTRY, owner=UNOWNED),))
    assert await looking.look() == []
    looking.around.now_s += SWEEP_EVERY_S
    assert await looking.look() == ["r1"]
