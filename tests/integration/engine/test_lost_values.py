"""What agents keep and what runs wait with, purged below engines that are running, or gone as it may."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.errors import StateConflict
from factorychain_engine.storage.buckets import QUEUED, VALUES
from tests.engine_harness import Chain, Engine
from tests.kept_values import a_run
from tests.nats_fixture import NatsServer
from tests.storage_admin import storage_admin
from tests.storage_looks import has_looked, said
from tests.token_samples import ADA
from tests.waiting import until_not

LOOK_S = 0.1
LOST = "the contents of a bucket are lost"


async def two_engines(chain: Chain) -> tuple[Engine, Engine]:
    return await chain.engine(storage_look_s=LOOK_S), await chain.engine(storage_look_s=LOOK_S)


async def have_looked(*engines: Engine) -> None:
    # The first may have asked before what the test did; the last has not looked for the sentinel yet.
    for _ in range(3):
        await asyncio.gather(*map(has_looked, engines))


async def test_a_purge_is_told_once_by_each_engine_and_agents_find_nothing(
    chain: Chain, nats_server: NatsServer
) -> None:
    engine, other = await two_engines(chain)
    kept = await a_run(chain, engine)
    revision = await kept.store(b"1")
    await have_looked(engine, other)
    async with storage_admin(nats_server) as admin:
        for purges in (1, 2):
            with capture_logs() as lines:
                await admin.purge(VALUES)
                await have_looked(engine, other)
            assert said(lines, LOST, VALUES) == ["purged"] * 2, f"purge {purges}"
            assert await kept.load() == (None, 0)
            with pytest.raises(StateConflict):
                await kept.store(b"2", revision, request_id=f"late-{purges}")
            revision = await kept.store(b"3", request_id=f"anew-{purges}")
            assert await kept.load() == (b"3", revision)
        await have_looked(engine, other)
        with capture_logs() as lines:
            await admin.purge(VALUES, keep=1)
            await have_looked(engine, other)
        assert said(lines, LOST, VALUES) == ["purged"] * 2
    assert engine.server.storage_watch.healthy
    await a_run(chain, engine, thread="t2")  # nothing is refused for it


async def test_a_purge_of_what_waits_to_start_is_told_before_its_turn(
    chain: Chain, nats_server: NatsServer
) -> None:
    engine = await chain.engine(storage_look_s=LOOK_S)
    for number in range(2):
        await engine.start_run(thread=f"t{number}")
    waiting = await engine.start_run(thread="t2", on_busy=pb.ON_BUSY_ENQUEUE)
    await have_looked(engine)
    async with storage_admin(nats_server) as admin:
        with capture_logs() as lines:
            await admin.purge(QUEUED)
            await have_looked(engine)
    assert said(lines, LOST, QUEUED) == ["purged"]
    assert await engine.waiting() == [waiting.run]


async def test_values_that_go_as_they_may_are_never_told_lost(
    chain: Chain, nats_server: NatsServer
) -> None:
    engine, other = await two_engines(chain)
    values = engine.server.storage.values
    with capture_logs() as lines:
        kept = await a_run(chain, engine)
        revision = await kept.store(b"1")
        await have_looked(engine, other)
        await kept.store(None, revision, request_id="2")  # removed by one of them
        await kept.store(b"3", name="expiring", request_id="3")
        await have_looked(engine, other)
        async with storage_admin(nats_server) as admin:
            await admin.purge_of(VALUES, f"{ADA.ukey}.*.state")  # a marker went
            await have_looked(engine, other)
            await admin.drop_older(VALUES, 1.0)
            await until_not(lambda: values.list(f"{ADA.ukey}.>"))
            await have_looked(engine, other)
            await admin.drop_older(VALUES, 0.0)
        third = await chain.engine(storage_look_s=LOOK_S)
        await have_looked(engine, other, third)
        await other.stop()
        await have_looked(engine, third)
    assert said(lines, LOST, VALUES) == []
