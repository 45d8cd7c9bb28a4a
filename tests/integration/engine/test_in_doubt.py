"""Places whose admission nobody could confirm, and engines that are killed between two writes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import factorychain_engine.places.starts
from factorychain._core.kv import KvBucket
from factorychain._core.stored import NatsUnavailable
from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.errors import ChainDegraded
from factorychain_engine.records import user_json
from tests.engine_harness import Chain, Engine
from tests.token_samples import ADA
from tests.waiting import until_not, until_true


async def test_a_place_that_storage_never_confirmed_is_free_again_within_seconds(
    chain: Chain, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factorychain_engine.places.starts, "IN_DOUBT_S", 0.1)
    await engine.start_run(agent="quick")  # from now on its user's record is known here
    await until_not(engine.active)
    await engine.until_passes(2)  # the first look through all records is over
    users = engine.server.users
    replace, read = users.replace, users.read

    async def unanswered(*arguments: Any) -> Any:
        await replace(*arguments)
        raise NatsUnavailable("the answer was lost", sent=True)

    async def away(*_: Any) -> Any:
        raise NatsUnavailable("away", sent=False)

    monkeypatch.setattr(users, "replace", unanswered)
    monkeypatch.setattr(users, "read", away)
    with pytest.raises(ChainDegraded):
        await engine.start_run(thread="t1", request_id="doubtful")
    monkeypatch.setattr(users, "replace", replace)
    monkeypatch.setattr(users, "read", read)

    (run,) = await engine.active()
    await until_not(engine.active, 10)
    assert run not in chain.agents.executed
    assert len(await chain.log.endings(ADA, "t1", run)) == 1


async def test_a_place_that_nobody_in_its_engine_holds_is_found_without_a_look_at_all_records(
    chain: Chain, engine: Engine
) -> None:
    lost = await engine.start_run(thread="t1")
    await engine.until_passes(2)
    run = engine.server.runs.find(ADA, lost.run)
    assert run is not None
    engine.server.runs.remove(run)
    engine.server.runs._starting.clear()  # as if its task had ended without a trace
    chain.agents.forget(lost.run)
    await until_not(engine.active, 5)
    assert len(await chain.log.endings(ADA, "t1", lost.run)) == 1


async def test_who_asks_for_the_clean_up_while_it_looks_is_heard(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.until_passes(2)
    users, scan = engine.server.users, engine.server.users.scan
    looks = 0

    async def asked_meanwhile() -> Any:
        nonlocal looks
        looks += 1
        if looks == 1:
            engine.server.clean_up.sweep_soon()
        async for each in scan():
            yield each

    monkeypatch.setattr(users, "scan", asked_meanwhile)
    engine.server.clean_up.sweep_soon()
    await until_true(lambda: looks == 2)


async def test_a_start_that_takes_long_is_not_taken_for_a_forgotten_one(
    chain: Chain, engine: Engine
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        reached.set()
        await go_on.wait()

    chain.agents.before_accepting = hold
    starting = asyncio.ensure_future(engine.start_run(thread="t1"))
    await reached.wait()
    engine.server.clean_up.sweep_soon()
    passes = engine.server.clean_up.passes
    await engine.until_passes(passes + 3)
    go_on.set()
    started = await starting
    assert await engine.active() == [started.run]
    assert await chain.log.endings(ADA, "t1", started.run) == []


async def test_a_run_whose_turn_storage_did_not_confirm_yet_is_not_taken_for_a_forgotten_one(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await chain.engine(user_max_runs=1)
    first = (await engine.start_run(thread="a")).run
    waiting = (await engine.start_run(thread="b", on_busy=pb.ON_BUSY_ENQUEUE)).run
    users = engine.server.users
    replace, read = users.replace, users.read
    lost, go_on = asyncio.Event(), asyncio.Event()
    promoting: list[asyncio.Task[Any] | None] = []

    async def losing(*arguments: Any) -> Any:
        stored = await replace(*arguments)
        if stored.record.find(waiting) is None or promoting:
            return stored
        promoting.append(asyncio.current_task())
        raise NatsUnavailable("the answer was lost", sent=True)

    async def slow(*arguments: Any) -> Any:
        if asyncio.current_task() in promoting and not go_on.is_set():
            lost.set()
            await go_on.wait()
        return await read(*arguments)

    monkeypatch.setattr(users, "replace", losing)
    monkeypatch.setattr(users, "read", slow)
    await chain.agents.end(first)
    await asyncio.wait_for(lost.wait(), 30)
    engine.server.clean_up.sweep_soon()
    await engine.until_passes(engine.server.clean_up.passes + 3)
    assert await chain.log.endings(ADA, "b", waiting) == [], "it was taken for forgotten"
    assert not engine.looks_after(waiting)
    go_on.set()
    await until_true(lambda: waiting in chain.agents.runs)
    assert [each.entry.run for each in engine.server.runs.all()] == [waiting]
    await chain.agents.end(waiting)
    await until_not(engine.active)
    assert chain.agents.executed == [first, waiting]
    (ending,) = await chain.log.endings(ADA, "b", waiting)
    assert ending.HasField("agent_completed")


async def test_an_engine_that_vanished_while_records_could_not_be_read_is_missed_all_the_same(
    chain: Chain, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await chain.engine()
    await other.until_passes(2)
    started = await engine.start_run(thread="t1")
    users, scan = other.server.users, other.server.users.scan
    failures = 0

    async def failing() -> Any:
        nonlocal failures
        failures += 1
        if failures:
            raise NatsUnavailable("away", sent=False)
        yield

    monkeypatch.setattr(users, "scan", failing)
    await engine.crash()
    await until_true(lambda: failures > 0)
    monkeypatch.setattr(users, "scan", scan)
    await until_true(lambda: other.looks_after(started.run))


@pytest.mark.parametrize("moment", ["before execute", "before records", "before release"])
async def test_an_engine_that_is_killed_between_two_writes_leaves_one_ending_and_no_place(
    chain: Chain, engine: Engine, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    reached = asyncio.Event()

    async def never(*_: Any, **__: Any) -> Any:
        reached.set()
        await asyncio.Event().wait()

    if moment == "before execute":
        monkeypatch.setattr(engine.server.peers, "execute", never)
    elif moment == "before records":
        monkeypatch.setattr(engine.server.books, "started", lambda *_: reached.set())
    else:
        monkeypatch.setattr(engine.server.factory, "_free", never)
    agent = "quick" if moment == "before release" else "researcher"
    starting = asyncio.ensure_future(engine.start_run(thread="t1", request_id="once", agent=agent))
    await asyncio.wait_for(reached.wait(), 30)
    await engine.crash()
    await asyncio.gather(starting, return_exceptions=True)
    (run,) = await _places(chain)

    other = await chain.engine()
    if moment == "before records":
        await until_true(lambda: other.looks_after(run))
        await chain.agents.end(run)
    await until_not(other.active, 15)
    (ending,) = await chain.log.endings(ADA, "t1", run)
    lost = moment == "before execute"
    assert ending.WhichOneof("event") == ("agent_failed" if lost else "agent_completed")
    again = await other.start_run(thread="t1", request_id="once", agent=agent)
    assert (again.run, again.existing) == (run, True)
    assert chain.agents.executed == ([] if lost else [run])
    usage = await other.stub.GetUsage(pb.GetUsageRequest(), metadata=other.as_user(ADA))
    assert (usage.active_runs, usage.recorded_runs) == (0, 1)


async def _places(chain: Chain) -> list[str]:
    """Who holds a place, while no engine is there to say so."""
    async with chain.nats.connected("engine") as js:
        entry = await KvBucket.of(js, "users").read(ADA.ukey)
        assert entry.value is not None
        return [each.run for each in user_json.decode(entry.value).active]
