"""Runs that wait for a place: in which order they start, what their users see, and what they survive."""

from __future__ import annotations

from typing import Any

from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.types.v1.run_pb2 import RunState
from tests.engine_harness import Chain, Engine
from tests.engine_peers import completed
from tests.token_samples import ADA
from tests.waiting import until, until_not, until_true

QUEUED, RUNNING = RunState.RUN_STATE_QUEUED, RunState.RUN_STATE_RUNNING


async def enqueue(engine: Engine, **fields: Any) -> pb.StartRunResponse:
    return await engine.start_run(on_busy=pb.ON_BUSY_ENQUEUE, **fields)


async def fill(engine: Engine) -> list[str]:
    """As many runs as a user may have."""
    return [(await engine.start_run(thread=f"busy{number}")).run for number in range(2)]


async def kinds(chain: Chain, thread: str, run: str) -> list[str]:
    events = await chain.log.events(ADA, thread)
    return [str(event.WhichOneof("event")) for of, event in events if of == run]


async def test_a_run_that_waits_is_shown_and_starts_when_a_place_is_free(
    chain: Chain, engine: Engine
) -> None:
    first, second = await fill(engine)
    started = await enqueue(
        engine,
        thread="t",
        input_json='{"text":"Later"}',
        metadata_json='{"a":1}',
        context=[{"description": "page", "value": "7"}],
    )
    assert (started.position, started.existing, started.after) == (1, False, 0)
    waiting = await engine.run(started.run)
    assert (waiting.state, waiting.position, waiting.input_json) == (QUEUED, 1, '{"text":"Later"}')
    usage = await engine.stub.GetUsage(pb.GetUsageRequest(), metadata=engine.as_user(ADA))
    assert (usage.active_runs, usage.queued_runs) == (2, 1)
    await until(lambda: _seen(chain, "t", started.run, ["run_queued"]))

    await chain.agents.end(first, completed())
    await until_true(lambda: started.run in chain.agents.runs)
    there = chain.agents.runs[started.run]
    assert there.request.input_json == '{"text":"Later"}'
    assert there.request.metadata_json == '{"a":1}'
    assert [each.value for each in there.request.context] == ["7"]
    running = await engine.run(started.run)
    assert (running.state, running.position) == (RUNNING, 0)
    assert running.created_at == waiting.created_at
    assert (running.after, running.epoch) == (waiting.after, waiting.epoch)
    assert there.ctx.deadline_s > waiting.created_at.ToNanoseconds() / 1e9 + 299

    await chain.agents.end(started.run, completed())
    await chain.agents.end(second, completed())
    await until_not(engine.active)
    assert await kinds(chain, "t", started.run) == [
        "run_queued",
        "agent_started",
        "agent_completed",
    ]


async def _seen(chain: Chain, thread: str, run: str, expected: list[str]) -> bool:
    return await kinds(chain, thread, run) == expected
