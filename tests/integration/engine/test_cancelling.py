"""A cancel that meets a run on its way from one place to another."""

from __future__ import annotations

import asyncio

from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.errors import Capacity
from factorychain.types.v1.run_pb2 import RunState
from tests.engine_harness import Chain
from tests.token_samples import ADA
from tests.waiting import until_not, until_true


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
