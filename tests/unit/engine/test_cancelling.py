"""A cancel finds its run wherever it goes meanwhile, and calls it ended only when it has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from factorychain._core.ids import Principal
from factorychain._core.stored import NatsUnavailable
from factorychain.errors import ChainDegraded
from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.queueing import as_place
from factorychain_engine.admission.record import ActiveRun, UserRecord
from factorychain_engine.cancelling import Canceller
from factorychain_engine.lifeline import EndReason

ADA = Principal("acme", "ada")
NOTHING = UserRecord("acme", "ada")
QUEUED = QueuedRun(
    run="r1",
    thread="t1",
    agent="researcher",
    request_hash="0" * 32,
    kept="k1",
    queued_at_s=1.0,
    base=3,
    base_seq=2,
    base_epoch=1,
)
WAITING = replace(NOTHING, queue=(QUEUED,), queue_owner="e1")
RUNNING = replace(NOTHING, active=(as_place(QUEUED),))


class Users:
    """What is stored, from one look to the next; the last of it stays."""

    def __init__(self, records: Sequence[UserRecord]) -> None:
        self._records = list(records)
        self.marks: list[str] = []
        self.fails: BaseException | None = None
        self.on_change: Callable[[], object] = lambda: None

    async def read(self, _: Principal) -> Any:
        class Known:
            record = self._records.pop(0) if len(self._records) > 1 else self._records[0]

        return Known

    async def change(self, _: Principal, change: Callable[[UserRecord], UserRecord]) -> UserRecord:
        if self.fails is not None:
            raise self.fails
        self._records[0] = change(self._records[0])
        self.on_change()
        self.marks = [each.cancel for each in self._records[0].active]
        return self._records[0]


class Here:
    """A run that this engine looks after until it is cancelled."""

    def __init__(self, then: Callable[[asyncio.Future[Any]], None]) -> None:
        self.ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._then = then

    def cancel(self, _: EndReason) -> None:
        self._then(self.ended)


class Layers:
    """All that a cancel asks, as it is when the run is nowhere and nobody answers."""

    def __init__(self, *records: UserRecord, here: Here | None = None) -> None:
        self.users = Users(records)
        self.here = here
        self.told: list[str] = []
        self.on_told: Callable[[], object] = lambda: None
        self.marked = 0

    async def cancelled(self, timeout_s: float = 0.0) -> bool:
        parts = cast(Any, self)
        canceller = Canceller(parts, parts.users, parts, parts, parts, parts)
        return await canceller.cancel_run(ADA, "r1", EndReason.USER, timeout_s)

    def find(self, *_: object) -> Here | None:
        here, self.here = self.here, None
        return here

    async def wait(self, *_: object) -> None:
        await asyncio.sleep(0)

    async def end(self, *_: object) -> bool:
        self.marked += 1
        return False

    def run(self, _: Principal, entry: ActiveRun) -> ActiveRun:
        return entry

    async def cancel(self, context: ActiveRun, *_: object) -> None:
        self.told.append(context.run)
        self.on_told()


async def test_a_run_that_has_just_got_a_place_has_not_ended() -> None:
    layers = Layers(WAITING, RUNNING)
    assert not await layers.cancelled()
    assert layers.marked == 1


async def test_a_run_that_waits_no_more_and_has_no_place_has_ended() -> None:
    assert await Layers(WAITING, NOTHING).cancelled()
    assert await Layers(RUNNING, NOTHING).cancelled()
    assert await Layers(NOTHING).cancelled()


async def test_a_run_that_this_engine_looks_after_no_more_is_looked_for_again() -> None:
    here = Here(lambda ended: ended.set_exception(ChainDegraded("engine")))
    returned = Layers(RUNNING, WAITING, NOTHING, here=here)
    assert await returned.cancelled(60.0), "agents refused it, it went back and ended there"
    assert returned.marked == 1
    here = Here(lambda ended: ended.set_exception(ChainDegraded("engine")))
    taken_over = Layers(RUNNING, RUNNING, NOTHING, here=here)
    assert await taken_over.cancelled(60.0)
    assert taken_over.told == ["r1"], "wherever its place says that it is"


async def test_a_run_that_ends_here_is_waited_for() -> None:
    ends = Here(lambda ended: ended.set_result(object()))
    assert await Layers(RUNNING, here=ends).cancelled(60.0)
    goes_on = Here(lambda _: None)
    assert not await Layers(RUNNING, here=goes_on).cancelled()


async def test_the_place_is_marked_before_anybody_is_told_and_once() -> None:
    order: list[str] = []
    layers = Layers(RUNNING)
    layers.users.on_change = lambda: order.append("marked")
    layers.on_told = lambda: order.append("told")
    await layers.cancelled(0.1)
    assert order[:2] == ["marked", "told"]
    assert order.count("marked") == 1
    assert layers.users.marks == ["USER"]


async def test_without_storage_a_run_that_is_here_is_told_and_the_user_to_ask_again() -> None:
    told: list[str] = []
    here = Here(lambda _: told.append("r1"))
    layers = Layers(RUNNING, here=here)
    layers.users.fails = NatsUnavailable("the users' records", sent=False)
    with pytest.raises(ChainDegraded):
        await layers.cancelled()
    assert told == ["r1"]


async def test_whoever_asks_and_leaves_at_once_has_asked() -> None:
    told: list[str] = []
    layers = Layers(RUNNING, here=Here(lambda _: told.append("r1")))
    layers.users.fails = asyncio.CancelledError()  # while the mark is on its way
    with pytest.raises(asyncio.CancelledError):
        await layers.cancelled()
    assert told == ["r1"]
