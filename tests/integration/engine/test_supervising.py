"""Looking after runs: cancel, limits of a life, lost agents, lost engines."""

from __future__ import annotations

import asyncio
import time

import pytest

import factorychain_engine.server
from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.errors import ChainDegraded
from factorychain.types.v1.run_pb2 import RunState
from tests.engine_harness import Chain, Engine
from tests.engine_peers import completed
from tests.token_samples import ADA
from tests.waiting import until, until_not, until_true


async def test_cancel_answers_when_the_run_has_ended(chain: Chain, engine: Engine) -> None:
    started = await engine.start_run(thread="t1")
    ended = await engine.cancel(started.run)
    assert (ended.state, ended.error.reason) == (RunState.RUN_STATE_CANCELLED, "USER")
    assert await engine.active() == []
    assert len(await chain.log.endings(ADA, "t1", started.run)) == 1


async def test_cancel_works_from_an_engine_that_does_not_have_the_run(
    chain: Chain, engine: Engine
) -> None:
    other = await chain.engine()
    started = await engine.start_run(thread="t1")
    ended = await other.cancel(started.run)
    assert (ended.state, ended.error.reason) == (RunState.RUN_STATE_CANCELLED, "USER")
    await until_not(other.active)


async def test_cancel_of_an_ended_run_succeeds_and_changes_nothing(
    chain: Chain, engine: Engine
) -> None:
    started = await engine.start_run(agent="quick")
    await until_not(engine.active)
    ended = await engine.cancel(started.run)
    assert ended.state == RunState.RUN_STATE_COMPLETED
    assert ended == await engine.run(started.run)


async def test_cancel_while_agents_are_still_taking_the_run(chain: Chain, engine: Engine) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        reached.set()
        await go_on.wait()

    chain.agents.before_accepting = hold
    starting = asyncio.ensure_future(engine.start_run(request_id="once"))
    await reached.wait()
    run = (await engine.active())[0]
    cancelling = asyncio.ensure_future(engine.cancel(run))
    await asyncio.sleep(0)
    go_on.set()
    assert (await cancelling).state == RunState.RUN_STATE_CANCELLED
    assert (await starting).run == run


async def test_cancel_of_a_run_that_does_not_stop_says_so_in_time(
    chain: Chain, engine: Engine
) -> None:
    chain.agents.stubborn = True
    started = await engine.start_run()
    began_s = time.monotonic()
    with pytest.raises(ChainDegraded):
        await engine.stub.CancelRun(
            pb.CancelRunRequest(run=started.run), metadata=engine.as_user(ADA), timeout=1
        )
    assert time.monotonic() - began_s < 3


async def test_a_run_that_does_not_stop_is_ended_without_its_agents(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factorychain_engine.server, "CANCEL_GRACE_S", 0.3)
    engine = await chain.engine()
    chain.agents.stubborn = True
    started = await engine.start_run(thread="t1")
    ended = await engine.cancel(started.run)
    assert (ended.state, ended.error.reason) == (RunState.RUN_STATE_CANCELLED, "USER")
    assert await engine.active() == []
    # What the agent says afterwards reaches nobody.
    assert not await chain.log.append(chain.agents.runs[started.run].ctx, completed())
    assert len(await chain.log.endings(ADA, "t1", started.run)) == 1


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_run_is_ended_at_its_deadline(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, stubborn: bool
) -> None:
    monkeypatch.setattr(factorychain_engine.server, "CANCEL_GRACE_S", 0.3)
    engine = await chain.engine()
    chain.agents.stubborn = stubborn
    started = await engine.start_run(agent="brief", thread="t1")  # may live half a second
    await until_not(engine.active)
    ended = await engine.run(started.run)
    assert ended.error.reason == "DEADLINE"
    assert set(chain.agents.runs[started.run].cancel_reasons) == {"DEADLINE"}
    assert len(await chain.log.endings(ADA, "t1", started.run)) == 1


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_run_without_a_sign_of_life_is_ended(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, stubborn: bool
) -> None:
    monkeypatch.setattr(factorychain_engine.server, "CANCEL_GRACE_S", 0.3)
    engine = await chain.engine(run_idle_s=1)
    chain.agents.stubborn = stubborn
    lively, idle = await engine.start_run(), await engine.start_run()
    chain.agents.runs[idle.run].idle_ms = 1500
    await engine.until_active([lively.run])
    ended = await engine.run(idle.run)
    assert ended.error.reason == "UNRESPONSIVE"
    assert ended.state == (RunState.RUN_STATE_FAILED if stubborn else RunState.RUN_STATE_CANCELLED)


async def test_the_end_of_the_stream_does_not_end_the_run(chain: Chain, engine: Engine) -> None:
    started = await engine.start_run(thread="t1")
    await until_true(lambda: chain.agents.followed == 1)
    chain.agents.break_streams()
    await until_true(lambda: chain.agents.followed == 2)
    chain.agents.break_streams()
    await until_true(lambda: chain.agents.followed == 3)
    assert (await engine.run(started.run)).state == RunState.RUN_STATE_RUNNING
    await chain.agents.end(started.run)
    await until_not(engine.active)
    assert (await engine.run(started.run)).state == RunState.RUN_STATE_COMPLETED
    assert chain.agents.executed == [started.run]


async def test_a_run_that_ended_while_the_stream_was_broken_is_not_lost(
    chain: Chain, engine: Engine
) -> None:
    started = await engine.start_run(thread="t1")
    address = chain.agents.address
    run = chain.agents.runs[started.run]
    await chain.agents.stop()
    await chain.log.append(run.ctx, completed('"said in time"'))
    await chain.agents.start(address)
    await until_not(engine.active)
    ended = await engine.run(started.run)
    assert (ended.state, ended.output_json) == (RunState.RUN_STATE_COMPLETED, '"said in time"')


async def test_another_process_at_the_agents_address_means_lost_at_once(
    chain: Chain, engine: Engine
) -> None:
    started = await engine.start_run(thread="t1")
    began_s = time.monotonic()
    await chain.restart_agents("boot-2")
    await until_not(engine.active)
    assert time.monotonic() - began_s < 5
    ended = await engine.run(started.run)
    assert (ended.state, ended.error.reason) == (RunState.RUN_STATE_FAILED, "AGENT_LOST")
    assert ended.error.retryable
    assert len(await chain.log.endings(ADA, "t1", started.run)) == 1
    assert [each.run for each in chain.emitter.opened] == [started.run]
    assert chain.emitter.opened[0].scope == "lifecycle"


async def test_agents_that_lost_the_run_lose_it_at_once(chain: Chain, engine: Engine) -> None:
    started = await engine.start_run(thread="t1")
    chain.agents.forget(started.run)
    chain.agents.break_streams()
    await until_not(engine.active)
    assert (await engine.run(started.run)).error.reason == "AGENT_LOST"


async def test_agents_that_are_silent_for_long_are_lost(chain: Chain) -> None:
    engine = await chain.engine(agents_lost_after_s=1)
    started = await engine.start_run(thread="t1")
    await chain.agents.stop()
    await until_not(engine.active)
    ended = await engine.run(started.run)
    assert (ended.state, ended.error.reason) == (RunState.RUN_STATE_FAILED, "AGENT_LOST")


async def test_an_engine_that_stops_hands_its_runs_to_another(chain: Chain, engine: Engine) -> None:
    other = await chain.engine()
    started = await engine.start_run(thread="t1")
    await engine.stop()
    await until_true(lambda: other.looks_after(started.run))
    assert chain.agents.executed == [started.run]
    place = (await other.server.users.read(ADA)).record.find(started.run)
    assert place is not None
    assert place.agents_address == chain.agents.address
    await chain.agents.end(started.run)
    await until_not(other.active)
    assert (await other.run(started.run)).state == RunState.RUN_STATE_COMPLETED


async def test_the_runs_of_an_engine_that_was_killed_are_adopted(
    chain: Chain, engine: Engine
) -> None:
    started = await engine.start_run(thread="t1", input_json='{"text":"Kept?"}')
    await engine.crash()
    other = await chain.engine()  # begins after the other is gone
    await until_true(lambda: other.looks_after(started.run), 15)
    ended = await other.cancel(started.run)
    assert ended.state == RunState.RUN_STATE_CANCELLED
    assert ended.input_json == '{"text":"Kept?"}'
    assert len(await chain.log.endings(ADA, "t1", started.run)) == 1


async def test_a_run_that_ended_while_no_engine_was_there_is_recorded(
    chain: Chain, engine: Engine
) -> None:
    started = await engine.start_run(thread="t1")
    await engine.crash()
    await chain.agents.end(started.run, completed(output_tokens=5))
    other = await chain.engine()
    assert (await other.run(started.run)).state == RunState.RUN_STATE_COMPLETED
    await until_not(other.active, 15)
    usage = await other.stub.GetUsage(pb.GetUsageRequest(), metadata=other.as_user(ADA))
    assert (usage.recorded_runs, usage.usage.output_tokens) == (1, 5)


async def test_an_engine_that_lives_keeps_its_runs(chain: Chain, engine: Engine) -> None:
    other = await chain.engine()
    started = await engine.start_run()
    await other.until_passes(30)  # three times a heartbeat's life
    assert engine.looks_after(started.run)
    assert other.server.runs.find(ADA, started.run) is None


async def test_an_outage_of_storage_ends_no_run_and_frees_no_place(
    chain: Chain, engine: Engine
) -> None:
    other = await chain.engine()
    first, second = await engine.start_run(thread="t1"), await other.start_run(thread="t2")
    await chain.nats.kill()
    with pytest.raises(ChainDegraded):
        await engine.start_run()
    await until_true(lambda: not any(each.server.heartbeat.healthy for each in (engine, other)))
    await chain.nats.start()

    async def can_see() -> bool:
        try:
            return len(await engine.active()) == 2
        except ChainDegraded:
            return False

    await until(can_see, 15)
    assert engine.looks_after(first.run)
    assert other.looks_after(second.run)
    for run in (first.run, second.run):
        assert (await engine.cancel(run)).state == RunState.RUN_STATE_CANCELLED
    await until_not(engine.active)
    assert not chain.emitter.opened


async def test_nothing_remains_of_runs_that_have_ended(chain: Chain, engine: Engine) -> None:
    async def one_round() -> None:
        started = await engine.start_run(agent="quick")
        await until_not(engine.active)
        assert (await engine.run(started.run)).state == RunState.RUN_STATE_COMPLETED

    await one_round()
    await until_true(lambda: not len(engine.server.runs))
    tasks = len(asyncio.all_tasks())
    for _ in range(20):
        await one_round()
    await until_true(lambda: not len(engine.server.runs))
    await until_true(lambda: len(asyncio.all_tasks()) <= tasks + 2)
    assert len(engine.server.runs) == 0


async def test_the_clean_up_loop_is_unhealthy_when_it_cannot_see(
    chain: Chain, engine: Engine
) -> None:
    clean_up = engine.server.clean_up
    assert clean_up.healthy
    await chain.nats.kill()
    await until_true(lambda: not engine.server.server.health.serving)
    await chain.nats.start()
    await until_true(lambda: engine.server.server.health.serving, 15)
