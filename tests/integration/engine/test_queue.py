"""Runs that wait for a place: in which order they start, what their users see, and what they survive."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from factorychain._core.ids import Principal
from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.errors import (
    AgentNotFound,
    Capacity,
    ChainDegraded,
    FactoryChainError,
    ThreadBusy,
    UserQueueLimit,
)
from factorychain.types.v1.run_pb2 import RunState
from tests.engine_harness import BOB, Chain, Engine
from tests.engine_peers import completed
from tests.load import amount
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


async def rarely_cleaned(chain: Chain, **settings: Any) -> Engine:
    """An engine whose clean-up does not make up for a queue that nobody has looked at."""
    return await chain.engine(cleanup_interval_s=300, **settings)


async def test_a_run_that_waits_is_shown_and_starts_when_a_place_is_free(chain: Chain) -> None:
    engine = await rarely_cleaned(chain)
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


async def test_users_hear_of_every_position_once_it_changes(chain: Chain, engine: Engine) -> None:
    first, _ = await fill(engine)
    runs = [(await enqueue(engine, thread=f"t{number}")).run for number in range(3)]
    assert [(await engine.run(run)).position for run in runs] == [1, 2, 3]
    await until(lambda: _positions(chain, "t2", runs[2], [3]))
    await engine.cancel(runs[1])
    await until(lambda: _positions(chain, "t2", runs[2], [3, 2]))
    await chain.agents.end(first)
    await until(lambda: _positions(chain, "t2", runs[2], [3, 2, 1]))
    assert (await engine.run(runs[2])).position == 1


async def test_a_full_queue_refuses_and_says_when_to_come_back(chain: Chain) -> None:
    engine = await chain.engine(user_max_queued=1)
    await fill(engine)
    waiting = await enqueue(engine, thread="t", request_id="q")
    with pytest.raises(UserQueueLimit) as refused:
        await enqueue(engine, thread="t")
    assert refused.value.retry_after_s
    with pytest.raises(ThreadBusy, match=waiting.run):
        await engine.start_run(thread="t")
    again = await enqueue(engine, thread="t", request_id="q")
    assert (again.run, again.position, again.existing) == (waiting.run, 1, True)
    await engine.start_run(BOB, thread="t")  # nobody else waits for that


async def test_a_run_that_waits_is_cancelled_from_any_engine(chain: Chain, engine: Engine) -> None:
    other = await chain.engine()
    await fill(engine)
    waiting = await enqueue(engine, thread="t", input_json='{"text":"Never mind"}')
    ended = await other.cancel(waiting.run)
    assert (ended.state, ended.error.reason) == (RunState.RUN_STATE_CANCELLED, "USER")
    assert ended.input_json == '{"text":"Never mind"}'
    assert await other.waiting() == []
    assert (await engine.run(waiting.run)).state == RunState.RUN_STATE_CANCELLED
    assert (await enqueue(engine, thread="u")).position == 1
    assert len(await chain.log.endings(ADA, "t", waiting.run)) == 1
    assert waiting.run not in chain.agents.executed


async def test_who_waits_for_too_long_ends_with_a_reason(chain: Chain) -> None:
    engine = await chain.engine(queue_max_s=1)
    await fill(engine)
    waiting = await enqueue(engine, thread="t")
    await until(lambda: _ended(engine, waiting.run))
    ended = await engine.run(waiting.run)
    assert (ended.error.reason, ended.error.retryable) == ("QUEUE_TIMEOUT", True)


async def test_an_interrupt_ends_what_waits_in_its_thread_and_nothing_else(chain: Chain) -> None:
    engine = await rarely_cleaned(chain)
    running = (await engine.start_run(thread="t")).run
    waiting = (await enqueue(engine, thread="t")).run
    elsewhere = (await engine.start_run(thread="u")).run
    longer = (await enqueue(engine, thread="v")).run
    newest = await engine.start_run(thread="t", on_busy=pb.ON_BUSY_INTERRUPT)
    # Its place went to the one that had waited for longer.
    await engine.until_active([elsewhere, longer])
    assert newest.position > 0
    assert await engine.waiting() == [newest.run]
    for run in (running, waiting):
        await until(lambda run=run: _ended(engine, run))  # type: ignore[misc]  # bound here
        assert (await engine.run(run)).error.reason == "INTERRUPTED"
    await chain.agents.end(elsewhere)
    await until_true(lambda: newest.run in chain.agents.runs)


async def test_a_run_that_agents_refuse_waits_on_or_ends(chain: Chain) -> None:
    engine = await rarely_cleaned(chain)
    first, second = await fill(engine)
    one = (await enqueue(engine, thread="t")).run
    chain.agents.refuse_with = Capacity(retry_after_s=600.0)  # there is room before that
    await chain.agents.end(first)
    await until(lambda: _is(engine.waiting, [one]))
    chain.agents.refuse_with = None
    await until_true(lambda: one in chain.agents.runs, 20)

    async def has_begun() -> bool:
        return await kinds(chain, "t", one) == ["run_queued", "agent_started"]

    await until(has_begun)

    other = (await enqueue(engine, thread="u")).run
    chain.agents.refuse_with = AgentNotFound("researcher")
    await chain.agents.end(second)
    await until(lambda: _ended(engine, other))
    assert (await engine.run(other)).error.reason == "AGENT_NOT_FOUND"
    assert await engine.active() == [one]


@pytest.mark.parametrize("refusal", [Capacity(retry_after_s=600.0), ChainDegraded("emitter")])
async def test_agents_that_refuse_who_waited_are_asked_once_a_second(
    chain: Chain, refusal: FactoryChainError
) -> None:
    engine = await rarely_cleaned(chain)
    first, _ = await fill(engine)
    one = (await enqueue(engine, thread="t")).run
    chain.agents.refuse_with = refusal
    await chain.agents.end(first)
    await until_true(lambda: one in chain.agents.asked)
    # As after a break of the connection, when nobody has told yet who is there.
    engine.server.replicas.balance.unmeasured(chain.agents.address)
    began_s = time.monotonic()
    await until_true(lambda: chain.agents.asked.count(one) >= 4)
    assert time.monotonic() - began_s > 1.5
    chain.agents.refuse_with = None
    await until_true(lambda: one in chain.agents.runs)


@pytest.mark.alone  # an engine that is slow is passed over
async def test_an_engine_that_is_full_lets_users_wait_and_start_in_turn(chain: Chain) -> None:
    engine = await rarely_cleaned(chain, max_runs_total=1)
    only = (await engine.start_run(BOB, thread="b", request_id="same")).run
    again = await engine.start_run(BOB, thread="b", request_id="same")
    assert (again.run, again.existing) == (only, True)
    waiting = [(await enqueue(engine, thread=f"t{number}")).run for number in range(2)]
    bobs = (await engine.start_run(BOB, thread="c", on_busy=pb.ON_BUSY_ENQUEUE)).run
    with pytest.raises(Capacity):
        await engine.start_run(thread="now")
    for run in (only, waiting[0], bobs):
        await until_true(lambda run=run: run in chain.agents.runs)  # type: ignore[misc]  # bound here
        await chain.agents.end(run)
    await until_true(lambda: waiting[1] in chain.agents.runs)
    assert chain.agents.executed == [only, waiting[0], bobs, waiting[1]]


async def test_a_burst_does_not_exceed_what_an_engine_takes_and_is_told_why(chain: Chain) -> None:
    engine = await chain.engine(max_runs_total=2)

    async def start(user: str) -> str:
        try:
            return str((await engine.start_run(Principal("acme", user))).run)
        except Capacity:
            return ""

    runs = await asyncio.gather(*(start(f"u{number}") for number in range(20)))
    assert set(filter(None, runs)) == set(chain.agents.executed)
    assert len(chain.agents.executed) == 2
    waiting = [
        (await engine.start_run(Principal("acme", f"w{number}"), on_busy=pb.ON_BUSY_ENQUEUE)).run
        for number in range(6)
    ]
    for run in [*chain.agents.executed, *waiting]:
        await until_true(lambda run=run: run in chain.agents.runs)  # type: ignore[misc]  # bound here
        assert len(engine.server.runs) <= 2
        await chain.agents.end(run)
    assert set(chain.agents.executed[2:]) == set(waiting)


@pytest.mark.parametrize("how", ["stop", "crash"])
async def test_who_waits_is_adopted(chain: Chain, how: str) -> None:
    one, other = await chain.engine(), await chain.engine()
    first, _ = await fill(other)
    waiting = (await enqueue(one, thread="t")).run
    await (one.stop() if how == "stop" else one.crash())
    await until_true(lambda: other.server.queues.has(ADA), 20)
    assert (await other.run(waiting)).position == 1
    await chain.agents.end(first)
    await until_true(lambda: waiting in chain.agents.runs)


async def test_an_engine_that_stops_leaves_queues_to_others_and_ends_nobody(chain: Chain) -> None:
    engine = await rarely_cleaned(chain)
    first, _ = await fill(engine)
    one, other, _ = [(await enqueue(engine, thread=at)).run for at in ("t", "u", "busy1")]
    accepting, refusing = asyncio.Event(), asyncio.Event()

    async def refuse() -> None:
        accepting.set()
        await refusing.wait()
        raise Capacity

    chain.agents.before_accepting = refuse
    await chain.agents.end(first)
    await accepting.wait()
    await engine.server.queues.stop()
    refusing.set()

    async def is_left() -> bool:
        record = (await engine.server.users.read(ADA)).record
        return (record.position(one), record.queue_owner) == (1, "")

    await until(is_left)
    for act in (
        engine.cancel(other),
        engine.start_run(thread="busy1", on_busy=pb.ON_BUSY_INTERRUPT),
    ):
        with pytest.raises(ChainDegraded):
            await act
    assert await is_left()


@pytest.mark.load
async def test_many_wait_at_two_engines_one_of_which_is_killed(chain: Chain) -> None:
    waiting = amount(8, 20)
    engines = [await chain.engine(user_max_queued=200) for _ in range(2)]
    runs = {f"t{number}": list[str]() for number in range(5)}

    async def ask(thread: str) -> None:
        for number in range(waiting):
            asked = await enqueue(engines[number % 2], thread=thread)
            runs[thread].append(asked.run)

    await asyncio.gather(*(ask(thread) for thread in runs))
    ending = asyncio.create_task(_end_all(chain))
    await until_true(lambda: len(chain.agents.executed) > 1.5 * waiting, 30)
    killed, engines[0] = engines[0], engines[1]
    await killed.crash()

    await until_not(engines[1].left, 60)
    ending.cancel()
    assert chain.agents.most_running_of[ADA.ukey] <= 2
    executed = chain.agents.executed
    assert len(executed) == len(set(executed))
    for thread, asked in runs.items():
        events = await chain.log.events(ADA, thread)
        endings = [run for run, event in events if event.WhichOneof("event") == "agent_completed"]
        lost = [run for run, event in events if event.HasField("agent_failed")]
        assert sorted([*endings, *lost]) == sorted(asked)
        assert endings == [run for run in asked if run in endings]
        assert [run for run in executed if run in asked] == [
            run for run in asked if run in executed
        ]


async def _end_all(chain: Chain) -> None:
    while True:
        for run, there in list(chain.agents.runs.items()):
            if not there.finished.is_set():
                await chain.agents.end(run)
        await asyncio.sleep(0.005)


async def _positions(chain: Chain, thread: str, run: str, expected: list[int]) -> bool:
    events = await chain.log.events(ADA, thread)
    return [each.run_queued.position for of, each in events if of == run] == expected


async def _ended(engine: Engine, run: str) -> bool:
    return (await engine.run(run)).HasField("ended_at")


async def _is(ask: Any, expected: list[str]) -> bool:
    return bool(await ask() == expected)


async def _seen(chain: Chain, thread: str, run: str, expected: list[str]) -> bool:
    return await kinds(chain, thread, run) == expected
