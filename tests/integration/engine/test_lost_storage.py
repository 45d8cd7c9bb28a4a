"""Buckets that are full, deleted or emptied below engines that are running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.errors import ChainDegraded, UserEngineLimit
from factorychain.local.readiness import layer_serves
from factorychain.types.v1.run_pb2 import RunState
from factorychain_engine.admission.record import Totals, UserRecord
from factorychain_engine.records.users_store import UsersStore
from factorychain_engine.storage.buckets import QUEUED, RUNS, THREADS, USERS, VALUES
from tests.chaos.disk import Disk
from tests.engine_harness import BOB, Chain, Engine, running_chain
from tests.engine_peers import completed
from tests.nats_fixture import NatsServer, running_nats_server
from tests.small_disk import small_disk
from tests.storage_admin import StorageAdmin, storage_admin
from tests.storage_looks import has_looked, said
from tests.token_samples import ADA
from tests.waiting import until, until_not, until_true

T = TypeVar("T")

LOOK_S = 0.1
COMPLETED = RunState.RUN_STATE_COMPLETED


@pytest_asyncio.fixture
async def engine(chain: Chain) -> Engine:
    return await chain.engine(storage_look_s=LOOK_S)


@pytest_asyncio.fixture
async def admin(nats_server: NatsServer) -> AsyncIterator[StorageAdmin]:
    async with storage_admin(nats_server) as admin:
        yield admin


async def start_soon(engine: Engine, **fields: Any) -> pb.StartRunResponse:
    """A start, sent again as long as storage is in trouble."""

    async def start() -> pb.StartRunResponse | None:
        try:
            return await engine.start_run(**fields)
        except ChainDegraded:
            return None

    return await until(start)


async def if_there(found: Awaitable[T]) -> T | None:
    """What is found in a bucket, if there is one."""
    try:
        return await found
    except ChainDegraded:
        return None


async def one_ending(chain: Chain, thread: str, run: str) -> None:
    assert len(await chain.log.endings(ADA, thread, run)) == 1


async def has_noted_agents(engine: Engine, run: str) -> bool:
    entry = (await engine.server.users.read(ADA)).record.find(run)
    return entry is not None and bool(entry.agents_address)


def one_request_more(record: UserRecord) -> UserRecord:
    return replace(record, totals=record.totals.plus(Totals(requests=1)))


async def test_without_room_starts_are_refused_until_there_is_some(
    chain: Chain, engine: Engine, admin: StorageAdmin
) -> None:
    address = engine.server.server.address
    first = await engine.start_run(thread="t1")
    with capture_logs() as lines:
        await admin.leave_room(USERS, 0)
        for number in range(2):  # by its own write, and by what is known since
            with pytest.raises(ChainDegraded, match="no room") as refused:
                await engine.start_run(thread="t2", request_id=f"r{number}")
            assert refused.value.retry_after_s
        await until_not(lambda: layer_serves(address))
        await chain.agents.end(first.run)
        await until(lambda: chain.log.endings(ADA, "t1", first.run))
        await admin.leave_room(USERS, None)
        second = await start_soon(engine, thread="t2")
    await until(lambda: layer_serves(address))
    await engine.until_active([second.run])
    assert (await engine.run(first.run)).state == COMPLETED
    await one_ending(chain, "t1", first.run)
    assert said(lines, "a bucket is in trouble, nothing new starts", USERS) == ["full"]
    assert said(lines, "a bucket is well again", USERS) == [""]


async def test_after_deleted_records_of_users_every_engines_runs_have_their_places_again(
    chain: Chain, engine: Engine, admin: StorageAdmin
) -> None:
    other = await chain.engine(storage_look_s=LOOK_S)
    runs = [
        (await engine.start_run(thread="t1")).run,
        (await other.start_run(thread="t2")).run,
    ]
    waiting = await engine.start_run(thread="t3", on_busy=pb.ON_BUSY_ENQUEUE)
    await asyncio.gather(has_looked(engine), has_looked(other))
    with capture_logs() as lines:
        await admin.delete(USERS)
        bobs = await start_soon(engine, principal=BOB)
    assert sorted(await engine.active()) == sorted(runs)
    assert await engine.waiting() == [waiting.run]
    with pytest.raises(UserEngineLimit):
        await start_soon(other, thread="t4")
    for run in runs:
        await chain.agents.end(run)
    await until_true(lambda: waiting.run in chain.agents.runs)
    await chain.agents.end(waiting.run)
    await chain.agents.end(bobs.run)
    await until_not(engine.active)
    for thread, run in (("t1", runs[0]), ("t2", runs[1]), ("t3", waiting.run)):
        await one_ending(chain, thread, run)
        assert (await engine.run(run)).state == COMPLETED
    assert chain.agents.executed.count(waiting.run) == 1
    assert chain.agents.most_running_of[ADA.ukey] == 2
    # Each of the two engines says it once.
    trouble = said(lines, "a bucket is in trouble, nothing new starts", USERS)
    assert set(trouble) == {"missing"}
    assert len(trouble) <= 2
    assert len(said(lines, "the contents of a bucket are lost", USERS)) == 2


async def test_after_a_purge_a_start_finds_the_places_that_its_user_had(
    chain: Chain, engine: Engine, admin: StorageAdmin
) -> None:
    runs = [(await engine.start_run(thread=f"t{number}")).run for number in (1, 2)]
    quick = await engine.start_run(BOB, agent="quick")
    await until_true(lambda: engine.server.runs.find(BOB, quick.run) is None)
    await has_looked(engine)
    with capture_logs() as lines:
        await admin.purge(USERS)
        with pytest.raises(UserEngineLimit):
            await start_soon(engine, thread="t3")
        again = await start_soon(engine, principal=BOB, agent="quick")
    await until_true(lambda: engine.server.runs.find(BOB, again.run) is None)
    await chain.agents.end(runs[0])
    await engine.until_active(runs[1:])
    third = await start_soon(engine, thread="t3")
    for run in (runs[1], third.run):
        await chain.agents.end(run)
    await until_not(engine.active)
    assert (await engine.server.users.read(ADA)).record.totals.runs == 3
    for thread, run in (("t1", runs[0]), ("t2", runs[1]), ("t3", third.run)):
        await one_ending(chain, thread, run)
    assert len(said(lines, "the contents of a bucket are lost", USERS)) == 1


async def test_a_purge_that_nobody_runs_into_is_noticed(
    engine: Engine, admin: StorageAdmin
) -> None:
    run = (await engine.start_run(thread="t")).run
    await until(lambda: has_noted_agents(engine, run))
    await has_looked(engine)
    await admin.purge(USERS)
    elsewhere = UsersStore(engine.server.storage.users)

    async def is_there() -> bool:
        return (await elsewhere.read(ADA)).record.find(run) is not None

    await until(is_there)
    await until_true(lambda: engine.server.storage_watch.healthy)


async def test_what_another_engine_stored_only_to_see_whether_it_is_is_not_missed(
    chain: Chain, engine: Engine, admin: StorageAdmin
) -> None:
    other = await chain.engine(storage_look_s=LOOK_S)
    users = engine.server.storage.users
    await engine.start_run(thread="t1")
    with capture_logs() as lines:
        engine.server.storage.state.unanswered(USERS)
        await until(lambda: users.keys("try"))
        await asyncio.gather(has_looked(engine), has_looked(other))
        await admin.purge_of(USERS, "try")  # as its age does
        for _ in range(2):  # the first may have been under way
            await asyncio.gather(has_looked(engine), has_looked(other))
    assert said(lines, "the contents of a bucket are lost", USERS) == []
    await other.start_run(thread="t2")


async def test_a_lost_run_that_has_ended_gets_no_place_again(
    chain: Chain, engine: Engine, admin: StorageAdmin
) -> None:
    runs = [(await engine.start_run(thread=f"t{number}")).run for number in (1, 2)]
    await chain.log.append(chain.agents.runs[runs[0]].ctx, completed())  # and agents say nothing
    await admin.purge(USERS)
    engine.server.storage_watch.users_vanished()
    await until_true(lambda: engine.server.storage_watch.healthy)
    assert await engine.active() == runs[1:]
    third = await engine.start_run(thread="t3")
    assert sorted(await engine.active()) == sorted([runs[1], third.run])


async def test_a_lost_run_whose_thread_another_has_taken_meanwhile_ends(
    chain: Chain, admin: StorageAdmin
) -> None:
    slow = await chain.engine(storage_look_s=3600)
    lost = await slow.start_run(thread="t")
    await until(lambda: has_noted_agents(slow, lost.run))  # it writes nothing from now on
    await admin.purge(USERS)
    quicker = await chain.engine(storage_look_s=LOOK_S)
    taken = await quicker.start_run(thread="t")
    slow.server.storage_watch.users_vanished()  # as any start of its own would tell it
    await until(lambda: chain.log.endings(ADA, "t", lost.run))
    (ending,) = await chain.log.endings(ADA, "t", lost.run)
    assert ending.agent_cancelled.reason == "INTERRUPTED"
    await until_true(lambda: slow.server.runs.find(ADA, lost.run) is None)
    assert await quicker.active() == [taken.run]


@pytest.mark.parametrize("how", ["delete", "purge"])
async def test_who_waits_waits_on_although_another_engine_has_begun_the_record_anew(
    chain: Chain, admin: StorageAdmin, how: str
) -> None:
    slow = await chain.engine(storage_look_s=3600)
    runs = [(await slow.start_run(thread=f"t{number}")).run for number in (1, 2)]
    waiting = await slow.start_run(thread="t3", on_busy=pb.ON_BUSY_ENQUEUE)
    for run in runs:
        await until(partial(has_noted_agents, slow, run))  # it writes nothing by itself from now on
    quicker = await chain.engine(storage_look_s=LOOK_S)
    await (admin.delete(USERS) if how == "delete" else admin.purge(USERS))
    await until(lambda: if_there(quicker.server.users.change(ADA, one_request_more)))

    await slow.server.users.change(ADA, one_request_more)  # finds another record than it knew
    slow.server.storage_watch.users_vanished()  # as its next look would

    async def all_are_back() -> bool:
        return sorted(await quicker.left()) == sorted([*runs, waiting.run])

    await until(all_are_back)
    assert await quicker.waiting() == [waiting.run]


async def test_deleted_records_of_runs_are_made_again_of_those_under_way(
    chain: Chain, engine: Engine, admin: StorageAdmin
) -> None:
    run = (await engine.start_run(thread="t", request_id="once")).run
    await until(lambda: engine.server.records.find_run(ADA, run))
    await has_looked(engine)
    for bucket in (RUNS, THREADS, VALUES, QUEUED):
        await admin.delete(bucket)
    repeated = await start_soon(engine, thread="t", request_id="once")
    assert (repeated.run, repeated.existing) == (run, True)
    records = engine.server.records
    await until(lambda: if_there(records.find_run(ADA, run)))
    await until(lambda: if_there(records.thread(ADA, "t")))
    shown = await engine.run(run)
    assert shown.input_json == '{"text":"Why?"}'
    await chain.agents.end(run)
    await until_not(engine.active)
    assert (await engine.run(run)).state == COMPLETED
    for bucket in (VALUES, QUEUED):
        await until(partial(admin.exists, bucket))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "js", 8 * 1024 * 1024) as disk:
        yield disk


async def test_a_full_disk_that_says_nothing_is_found_and_survived(
    tmp_path: Path, disk: Disk
) -> None:
    async with running_nats_server(tmp_path) as nats, running_chain(tmp_path, nats) as chain:
        engine = await chain.engine(storage_look_s=LOOK_S, nats_timeout_s=0.5)
        run = (await engine.start_run(thread="t1")).run
        disk.fill()
        with pytest.raises(ChainDegraded):  # more than the rest of a page
            await engine.server.storage.values.put("big", bytes(8192))
        await until_true(lambda: not engine.server.storage_watch.healthy)
        with pytest.raises(ChainDegraded, match="stores nothing") as refused:
            await engine.start_run(thread="t2")
        assert refused.value.retry_after_s
        disk.empty()
        await nats.kill()
        await nats.start()
        second = await start_soon(engine, thread="t2")
        assert sorted(await engine.active()) == sorted([run, second.run])
        await chain.agents.end(run)
        await engine.until_active([second.run])
        await one_ending(chain, "t1", run)
