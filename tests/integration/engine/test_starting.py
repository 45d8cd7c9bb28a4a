"""Starting runs: places, limits, idempotency, refusals."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from factorychain._core.stored import NatsUnavailable
from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.errors import (
    AgentDependencyMissing,
    AgentNotFound,
    ChainDegraded,
    FactoryChainError,
    InvalidField,
    RunNotFound,
    ThreadBusy,
    TokenInvalid,
    UserEngineLimit,
)
from factorychain.types.v1.run_pb2 import Run, RunState
from factorychain_engine.admission.record import ActiveRun
from factorychain_engine.places import starting
from tests.engine_harness import BOB, Chain, Engine
from tests.engine_peers import completed
from tests.token_samples import ADA
from tests.waiting import until, until_not


async def test_a_run_goes_from_its_start_to_its_record(chain: Chain, engine: Engine) -> None:
    started = await engine.start_run(
        thread="t1", input_json='{"text":"Why is the sky blue?\\nReally."}', metadata_json='{"a":1}'
    )
    running = await engine.run(started.run)
    assert running.state == RunState.RUN_STATE_RUNNING
    assert (started.thread, started.after, started.existing) == ("t1", 0, False)
    assert started.epoch == running.epoch > 0
    assert started.trace == running.trace != ""

    await chain.agents.end(started.run, completed('{"answer":42}', output_tokens=7))
    await until_not(engine.active)
    ended = await engine.run(started.run)
    assert ended.state == RunState.RUN_STATE_COMPLETED
    assert ended.output_json == '{"answer":42}'
    assert ended.metadata_json == '{"a":1}'
    assert ended.HasField("ended_at")
    usage = await engine.stub.GetUsage(pb.GetUsageRequest(), metadata=engine.as_user(ADA))
    assert (usage.active_runs, usage.recorded_runs, usage.usage.output_tokens) == (0, 1, 7)
    threads = await engine.stub.ListThreads(pb.ListThreadsRequest(), metadata=engine.as_user(ADA))
    assert [each.title for each in threads.threads] == ["Why is the sky blue?"]


async def test_agents_get_the_run_of_the_token_and_nothing_else(
    chain: Chain, engine: Engine
) -> None:
    started = await engine.start_run(thread="t1")
    run = chain.agents.runs[started.run]
    assert (run.ctx.principal, run.ctx.thread, run.ctx.agent) == (ADA, "t1", "researcher")
    assert (run.ctx.scope, run.ctx.base, run.ctx.base_epoch) == ("run", 0, started.epoch)
    assert run.ctx.deadline_s - 300 == pytest.approx(run.ctx.expires_at_s - 360, abs=1)
    assert run.request.input_json == '{"text":"Why?"}'


async def test_the_next_run_of_a_thread_begins_after_the_last(chain: Chain, engine: Engine) -> None:
    first = await engine.start_run(thread="t1", agent="quick")
    await until_not(engine.active)
    second = await engine.start_run(thread="t1")
    assert (second.after, second.epoch) == (2, first.epoch)
    assert chain.agents.runs[second.run].ctx.base > 0


async def test_a_run_begins_after_one_that_another_engine_looked_after(chain: Chain) -> None:
    one, other = await chain.engine(), await chain.engine()
    first = await one.start_run(thread="t1", request_id="first", agent="quick")
    await until_not(one.active)
    await other.start_run(thread="t1", agent="quick")
    await until_not(other.active)
    third = await one.start_run(thread="t1", agent="quick")
    assert (third.after, third.epoch) == (4, first.epoch)


async def test_a_repeated_start_does_not_hide_what_came_after_its_run(chain: Chain) -> None:
    one, other = await chain.engine(), await chain.engine()
    first = await one.start_run(thread="t1", request_id="first", agent="quick")
    await until_not(one.active)
    await other.start_run(thread="t1", agent="quick")
    await until_not(other.active)
    again = await one.start_run(thread="t1", request_id="first", agent="quick")
    assert (again.run, again.after, again.existing) == (first.run, 0, True)
    await until_not(one.active)
    fourth = await one.start_run(thread="t1", agent="quick")
    assert (fourth.after, chain.agents.executed.count(first.run)) == (4, 1)
    await until_not(one.active)
    usage = await one.stub.GetUsage(pb.GetUsageRequest(), metadata=one.as_user(ADA))
    assert usage.recorded_runs == 3


async def test_a_repeated_start_is_found_when_the_user_is_at_the_limit(
    chain: Chain, engine: Engine
) -> None:
    first = await engine.start_run(thread="t1", request_id="first", agent="quick")
    await until_not(engine.active)
    await engine.start_run(thread="t2")
    await engine.start_run(thread="t3")
    again = await engine.start_run(thread="t1", request_id="first", agent="quick")
    assert (again.run, again.existing) == (first.run, True)


async def test_a_place_of_a_repeated_start_whose_engine_died_ends_nothing_again(
    chain: Chain, engine: Engine
) -> None:
    first = await engine.start_run(thread="t1", request_id="first", agent="quick")
    await until_not(engine.active)
    ended = await engine.run(first.run)
    left = replace(_entry_of(ended), base=2, base_seq=2)
    users = engine.server.users
    await users.change(ADA, lambda record: replace(record, active=(left,)))
    engine.server.clean_up.sweep_soon()
    await until_not(engine.active, 20)
    assert await engine.run(first.run) == ended
    assert len(await chain.log.endings(ADA, "t1", first.run)) == 1
    usage = await engine.stub.GetUsage(pb.GetUsageRequest(), metadata=engine.as_user(ADA))
    assert usage.recorded_runs == 1


async def test_the_third_run_of_a_user_is_refused_and_leaves_nothing(
    chain: Chain, engine: Engine
) -> None:
    first, second = await engine.start_run(), await engine.start_run()
    with pytest.raises(UserEngineLimit) as refused:
        await engine.start_run(request_id="third")
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s >= 1
    assert await engine.active() == [first.run, second.run]
    runs = await engine.stub.ListRuns(pb.ListRunsRequest(), metadata=engine.as_user(ADA))
    assert {each.run for each in runs.runs} == {first.run, second.run}
    assert len(chain.agents.executed) == 2
    await engine.start_run(BOB)  # another user's limit is their own


async def test_a_place_whose_run_has_ended_in_the_log_is_free_before_its_engine_says_so(
    chain: Chain, engine: Engine
) -> None:
    first, _ = await engine.start_run(thread="t1"), await engine.start_run(thread="t2")
    # Only the log has the ending: the stream to the engine says that the run is alive.
    await chain.log.append(chain.agents.runs[first.run].ctx, completed(output_tokens=3))
    third = await engine.start_run(thread="t1")
    assert third.after == 2
    assert first.run not in await engine.active()
    ended = await engine.run(first.run)
    assert ended.state == RunState.RUN_STATE_COMPLETED
    assert ended.input_json == '{"text":"Why?"}'
    usage = await engine.stub.GetUsage(pb.GetUsageRequest(), metadata=engine.as_user(ADA))
    assert (usage.recorded_runs, usage.usage.output_tokens) == (1, 3)


async def test_the_same_request_finds_the_same_run(chain: Chain, engine: Engine) -> None:
    other = await chain.engine()
    answers = await asyncio.gather(
        *(each.start_run(request_id="once") for each in [engine, other] * 5)
    )
    assert len({each.run for each in answers}) == 1
    assert len({each.thread for each in answers}) == 1
    assert sum(not each.existing for each in answers) == 1
    assert chain.agents.executed == [answers[0].run]

    await chain.agents.end(answers[0].run)
    await until_not(engine.active)
    again = await other.start_run(request_id="once")
    assert (again.run, again.existing, again.epoch) == (answers[0].run, True, answers[0].epoch)
    assert len(chain.agents.executed) == 1


@pytest.mark.parametrize("is_over", [False, True])
@pytest.mark.parametrize(
    "body", [{"input_json": '{"text":"Else?"}'}, {"thread": "another"}, {"agent": "quick"}]
)
async def test_the_same_request_id_with_another_body_is_refused(
    chain: Chain, engine: Engine, body: dict[str, Any], is_over: bool
) -> None:
    started = await engine.start_run(request_id="once", thread="t1")
    if is_over:
        await chain.agents.end(started.run)
        await until_not(engine.active)
    with pytest.raises(InvalidField, match="request_id"):
        await engine.start_run(**{"request_id": "once", "thread": "t1", **body})


async def test_the_same_request_id_of_two_users_is_two_runs(engine: Engine) -> None:
    ada = await engine.start_run(ADA, request_id="once", thread="t1")
    bob = await engine.start_run(BOB, request_id="once", thread="t1")
    assert ada.run != bob.run
    assert not bob.existing


async def test_a_busy_thread_is_refused(engine: Engine) -> None:
    started = await engine.start_run(thread="t1")
    with pytest.raises(ThreadBusy) as refused:
        await engine.start_run(thread="t1")
    assert refused.value.run == started.run


async def test_interrupt_ends_the_active_run_first(chain: Chain, engine: Engine) -> None:
    other = await chain.engine()
    first = await engine.start_run(thread="t1")
    second = await other.start_run(thread="t1", on_busy=pb.ON_BUSY_INTERRUPT)
    third = await other.start_run(thread="t1", on_busy=pb.ON_BUSY_INTERRUPT)
    for each in (first, second):  # which are told again if it takes them seconds
        assert set(chain.agents.runs[each.run].cancel_reasons) == {"INTERRUPTED"}
    assert (second.after, third.after) == (2, 4)
    ended = await engine.run(first.run)
    assert (ended.state, ended.error.reason) == (RunState.RUN_STATE_CANCELLED, "INTERRUPTED")
    await engine.until_active([third.run])


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"agent": "nobody"}, AgentNotFound),
        ({"agent": "broken"}, AgentDependencyMissing),
        ({"replaces": "r" + "a" * 24, "thread": "t1"}, RunNotFound),
        ({"input_json": "[]"}, InvalidField),
    ],
)
async def test_what_cannot_start_takes_no_place(
    engine: Engine, fields: dict[str, Any], error: type[FactoryChainError]
) -> None:
    with pytest.raises(error):
        await engine.start_run(**fields)
    assert await engine.active() == []


async def test_a_run_that_agents_refuse_leaves_nothing(chain: Chain, engine: Engine) -> None:
    chain.agents.refuse_with = AgentDependencyMissing(["Library"])
    with pytest.raises(AgentDependencyMissing) as refused:
        await engine.start_run(request_id="once")
    assert refused.value.names == ("Library",)
    assert await engine.active() == []
    runs = await engine.stub.ListRuns(pb.ListRunsRequest(), metadata=engine.as_user(ADA))
    assert not runs.runs
    chain.agents.refuse_with = None
    assert not (await engine.start_run(request_id="once")).existing


async def test_no_run_starts_while_agents_are_away(chain: Chain, engine: Engine) -> None:
    await engine.start_run()
    await chain.agents.stop()
    with pytest.raises(ChainDegraded):
        await engine.start_run()
    assert len(await engine.active()) == 1


async def test_a_start_that_waits_for_agents_holds_up_nothing_else_of_its_user(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        asked.set()
        await go_on.wait()

    monkeypatch.setattr(engine.server.turns, "_ready", slow)
    starting = asyncio.ensure_future(engine.start_run())
    await asked.wait()
    await engine.server.users.change(ADA, lambda record: replace(record, queue_owner="somebody"))
    assert not starting.done()
    go_on.set()
    assert (await starting).run in await engine.active()


async def test_a_start_whose_caller_has_gone_is_looked_after(chain: Chain, engine: Engine) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        reached.set()
        await go_on.wait()

    chain.agents.before_accepting = hold
    calling = asyncio.ensure_future(engine.start_run(request_id="once", thread="t1"))
    await reached.wait()
    calling.cancel()
    go_on.set()
    run = (await until(engine.active))[0]
    again = await engine.start_run(request_id="once", thread="t1")
    assert (again.run, again.existing) == (run, True)
    await chain.agents.end(run)
    await until_not(engine.active)
    assert (await engine.run(run)).state == RunState.RUN_STATE_COMPLETED


async def test_a_start_that_is_cancelled_at_any_moment_leaks_no_place(
    chain: Chain, engine: Engine
) -> None:
    for step in range(40):
        calling = asyncio.ensure_future(engine.start_run(thread="t1", request_id=f"{step}"))
        await asyncio.wait([calling], timeout=step * 0.0002)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        again = await engine.start_run(thread="t1", request_id=f"{step}")
        assert chain.agents.executed.count(again.run) == 1
        await chain.agents.end(again.run)
        await until_not(engine.active)
    assert len(chain.agents.executed) == 40


@pytest.mark.parametrize("is_stored", [True, False])
async def test_a_start_whose_answer_from_storage_is_lost_is_admitted_once(
    engine: Engine, chain: Chain, monkeypatch: pytest.MonkeyPatch, is_stored: bool
) -> None:
    users = engine.server.users
    replace = users.replace
    losses = 0

    async def losing(*arguments: Any) -> Any:
        nonlocal losses
        losses += 1
        if losses > 1:
            return await replace(*arguments)
        if is_stored:
            await replace(*arguments)
        raise NatsUnavailable("the answer was lost", sent=True)

    monkeypatch.setattr(users, "replace", losing)
    started = await engine.start_run(request_id="once")
    assert not started.existing
    assert await engine.active() == [started.run]
    assert chain.agents.executed == [started.run]


async def test_a_repeated_start_waits_for_what_agents_say_to_the_first(
    engine: Engine, chain: Chain
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        reached.set()
        await go_on.wait()
        raise AgentDependencyMissing(["Library"])

    chain.agents.before_accepting = hold
    first = asyncio.ensure_future(engine.start_run(request_id="once"))
    await reached.wait()
    second = asyncio.ensure_future(engine.start_run(request_id="once"))
    await asyncio.wait([second], timeout=0.2)
    go_on.set()
    for start in (first, second):
        with pytest.raises(AgentDependencyMissing):
            await start
    assert await engine.active() == []


async def test_a_repeated_start_is_not_told_of_a_run_that_agents_may_still_refuse(
    engine: Engine, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "ACCEPT_LOOKS", 2)
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        reached.set()
        await go_on.wait()

    chain.agents.before_accepting = hold
    first = asyncio.ensure_future(engine.start_run(request_id="once"))
    await reached.wait()
    with pytest.raises(ChainDegraded):
        await engine.start_run(request_id="once")
    go_on.set()
    run = (await first).run
    again = await engine.start_run(request_id="once")
    assert (again.run, again.existing) == (run, True)


async def test_agents_that_refuse_our_tokens_are_not_the_callers_fault(
    engine: Engine, chain: Chain
) -> None:
    chain.agents.refuse_with = TokenInvalid()
    with pytest.raises(ChainDegraded):
        await engine.start_run()
    assert await engine.active() == []


async def test_a_hundred_starts_over_two_engines_never_admit_a_third_run(
    chain: Chain, engine: Engine
) -> None:
    other = await chain.engine()
    for round_number in range(5):
        answers = await asyncio.gather(
            *(
                (engine, other)[each % 2].start_run(request_id=f"{round_number}-{each}")
                for each in range(100)
            ),
            return_exceptions=True,
        )
        started = [each for each in answers if isinstance(each, pb.StartRunResponse)]
        refused = [each for each in answers if isinstance(each, BaseException)]
        assert len(started) == 2
        assert all(isinstance(each, UserEngineLimit) for each in refused), refused
        assert chain.agents.most_running_of[ADA.ukey] == 2
        for each in started:
            await chain.agents.end(each.run)
        await until_not(engine.active)
    assert len(chain.agents.executed) == 10


def _entry_of(run: Run) -> ActiveRun:
    """A place of the run, as a repeated start takes it."""
    return ActiveRun(
        run=run.run,
        thread=run.thread,
        agent=run.agent,
        request_hash="00" * 16,
        owner="",
        admitted_at_s=0.0,
        deadline_s=4e9,
        base=0,
        base_seq=run.after,
        base_epoch=run.epoch,
        trace=run.trace,
    )
