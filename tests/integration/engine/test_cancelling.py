"""Cancels of runs on their way from one place to another, and of runs whose engine, or agents, are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from factorychain._core.crash_points import watch
from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.errors import Capacity, InternalFault
from factorychain.types.v1.run_pb2 import RunState
from tests.engine_harness import Chain, Engine
from tests.token_samples import ADA
from tests.waiting import until, until_not, until_true


async def test_a_run_is_cancelled_while_agents_refuse_it_and_it_goes_back_to_its_queue(
    chain: Chain,
) -> None:
    engine = await chain.engine(user_max_runs=1)
    first = (await engine.start_run(thread="a")).run
    waiting = (await engine.start_run(thread="b", on_busy=pb.ON_BUSY_ENQUEUE)).run
    asked, told = asyncio.Event(), asyncio.Event()

    async def refuse() -> None:
        asked.set()
        await told.wait()
        raise Capacity

    chain.agents.before_accepting = refuse
    await chain.agents.end(first)
    await asked.wait()
    cancelling = asyncio.create_task(engine.cancel(waiting))
    promoted = engine.server.runs.find(ADA, waiting)
    assert promoted is not None
    await until_true(lambda: promoted.cancel_reason is not None)
    told.set()
    ended = await cancelling
    assert (ended.state, ended.error.reason) == (RunState.RUN_STATE_CANCELLED, "USER")
    await until_not(engine.waiting)
    assert len(await chain.log.endings(ADA, "b", waiting)) == 1


class Died(Exception):
    """The engine is gone at a crash point."""


@pytest.fixture
def dies_marked() -> Iterator[None]:
    """Whoever is asked for a cancel comes as far as the mark."""

    def passed(name: str) -> None:
        if name == "engine.cancel.marked":
            raise Died

    watch(passed)
    try:
        yield
    finally:
        watch(None)


async def recorded(engine: Engine, run: str) -> None:
    """All that a start records is."""

    async def is_so() -> bool:
        return await engine.server.records.find_run(ADA, run) is not None

    await until(is_so)


async def test_a_cancelled_run_is_not_started_again_although_its_owner_was_never_told(
    chain: Chain,
) -> None:
    owner, asked = await chain.engine(), await chain.engine()
    run = (await owner.start_run(agent="safe", thread="t1")).run
    await recorded(owner, run)
    chain.agents.stubborn = True
    cancelling = asyncio.create_task(asked.cancel(run))
    await until_true(lambda: chain.agents.runs[run].cancel_reasons)
    cancelling.cancel()  # its user's socket is gone
    again = await chain.restart_agents("boot-2")
    await until_not(owner.active)
    ended = await owner.run(run)
    assert (ended.state, ended.error.reason) == (RunState.RUN_STATE_CANCELLED, "USER")
    assert (ended.attempt, again.executed) == (1, [])
    assert len(await chain.log.endings(ADA, "t1", run)) == 1


@pytest.mark.usefixtures("dies_marked")
async def test_whoever_adopts_a_run_that_was_to_end_ends_it(chain: Chain, engine: Engine) -> None:
    run = (await engine.start_run(thread="t1")).run
    await recorded(engine, run)
    with pytest.raises(InternalFault):
        await engine.cancel(run)
    assert chain.agents.runs[run].cancel_reasons == []
    await engine.crash()
    other = await chain.engine()
    await until_not(other.active)
    ended = await other.run(run)
    assert (ended.state, ended.error.reason) == (RunState.RUN_STATE_CANCELLED, "USER")
    assert len(await chain.log.endings(ADA, "t1", run)) == 1


@pytest.mark.usefixtures("dies_marked")
async def test_the_owner_finds_the_mark_when_whoever_was_asked_is_gone(chain: Chain) -> None:
    owner, asked = await chain.engine(), await chain.engine()
    roll = owner.server.clean_up._roll
    await until_true(lambda: asked.server.engine_id in roll._present)
    run = (await owner.start_run(thread="t1")).run
    await recorded(owner, run)
    with pytest.raises(InternalFault):
        await asked.cancel(run)
    await asked.stop()
    await until_not(owner.active)
    assert (await owner.run(run)).error.reason == "USER"
    assert len(await chain.log.endings(ADA, "t1", run)) == 1


@pytest.mark.usefixtures("dies_marked")
async def test_the_owner_finds_the_mark_when_agents_accept_the_run(chain: Chain) -> None:
    """Whoever was asked did not know its agents, and is gone; no look through all records is due."""
    owner, asked = await chain.engine(cleanup_interval_s=300), await chain.engine()
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        reached.set()
        await go_on.wait()

    chain.agents.before_accepting = hold
    starting = asyncio.ensure_future(owner.start_run(thread="t1"))
    await reached.wait()
    (run,) = await asked.active()
    with pytest.raises(InternalFault):
        await asked.cancel(run)
    await asked.crash()
    go_on.set()
    assert (await starting).run == run
    await until_not(owner.active)
    (ending,) = await chain.log.endings(ADA, "t1", run)
    assert ending.agent_cancelled.reason == "USER"
    assert chain.agents.runs[run].cancel_reasons == ["USER"]
