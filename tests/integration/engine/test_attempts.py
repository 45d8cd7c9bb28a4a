"""Runs whose agents are lost and that are started again: later attempts, and what ends them."""

from __future__ import annotations

from dataclasses import replace

from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.errors import Capacity
from factorychain.types.v1.run_pb2 import ContextItem, RunState
from factorychain_engine.admission.record import UserRecord
from tests.engine_harness import Chain, Engine
from tests.engine_peers import Agents, completed
from tests.token_samples import ADA
from tests.waiting import until, until_not, until_true

CONTEXT = ContextItem(description="Page", value="Refunds")


async def begun(engine: Engine, chain: Chain, agent: str = "safe") -> pb.StartRunResponse:
    """A run that agents have, and of which everything that is recorded at its start is recorded."""
    started = await engine.start_run(
        agent=agent, thread="t1", input_json='{"text":"Again?"}', context=[CONTEXT]
    )

    async def recorded() -> bool:
        stored = await engine.server.records.find_run(ADA, started.run)
        return stored is not None

    await until(recorded)
    return started


async def until_attempt(agents: Agents, run: str, attempt: int) -> None:
    await until_true(lambda: run in agents.runs and agents.runs[run].ctx.attempt == attempt)


async def attempts_in_log(chain: Chain) -> list[int]:
    events = await chain.log.events(ADA, "t1")
    return [e.agent_started.attempt for _, e in events if e.HasField("agent_started")]


async def test_a_lost_run_that_is_safe_to_repeat_goes_on_as_its_next_attempt(
    chain: Chain, engine: Engine
) -> None:
    started = await begun(engine, chain)
    first = chain.agents.runs[started.run]
    again = await chain.restart_agents("boot-2")
    await until_attempt(again, started.run, 2)
    second = again.runs[started.run]
    assert second.request == first.request
    assert second.request.context == [CONTEXT]
    assert second.ctx.deadline_s == first.ctx.deadline_s
    assert second.ctx.base == first.ctx.base

    async def shown() -> bool:
        return (await engine.run(started.run)).attempt == 2

    await until(shown)
    await again.end(started.run, completed('"at last"'))
    await until_not(engine.active)
    ended = await engine.run(started.run)
    assert (ended.state, ended.output_json) == (RunState.RUN_STATE_COMPLETED, '"at last"')
    assert (ended.attempt, len(ended.context)) == (2, 0)
    assert await attempts_in_log(chain) == [1, 2]
    assert len(await chain.log.endings(ADA, "t1", started.run)) == 1


async def test_a_run_is_started_only_so_often(chain: Chain) -> None:
    engine = await chain.engine(run_attempts=2)
    started = await begun(engine, chain)
    again = await chain.restart_agents("boot-2")
    await until_attempt(again, started.run, 2)
    last = await chain.restart_agents("boot-3")
    await until_not(engine.active)
    assert (await engine.run(started.run)).error.reason == "AGENT_LOST"
    assert last.executed == []
    assert len(await chain.log.endings(ADA, "t1", started.run)) == 1


async def test_a_stalled_attempt_that_wakes_up_is_not_heard(chain: Chain, engine: Engine) -> None:
    started = await begun(engine, chain)
    stalled = chain.agents
    again = await chain.restart_agents("boot-2")
    await until_attempt(again, started.run, 2)
    assert not await chain.log.append(stalled.runs[started.run].ctx, completed('"too late"'))
    await again.end(started.run)
    await until_not(engine.active)
    assert (await engine.run(started.run)).output_json == '"done"'


async def test_an_attempt_that_had_ended_before_it_was_lost_is_not_repeated(
    chain: Chain, engine: Engine
) -> None:
    started = await begun(engine, chain)
    await chain.log.append(chain.agents.runs[started.run].ctx, completed('"in time"'))
    again = await chain.restart_agents("boot-2")
    await until_not(engine.active)
    assert (await engine.run(started.run)).output_json == '"in time"'
    assert again.executed == []


async def test_a_run_can_be_cancelled_between_two_attempts(chain: Chain, engine: Engine) -> None:
    started = await begun(engine, chain)
    again = await chain.restart_agents("boot-2")
    await until_attempt(again, started.run, 2)
    await until_true(lambda: again.followed == 1)
    # Lost again, and nobody takes it now.
    again.refuse_with = Capacity()
    again.forget(started.run)
    again.break_streams()
    ended = await engine.cancel(started.run)
    assert (ended.state, ended.error.reason) == (RunState.RUN_STATE_CANCELLED, "USER")
    assert len(await chain.log.endings(ADA, "t1", started.run)) == 1


async def test_the_deadline_is_that_of_the_run_also_between_two_attempts(
    chain: Chain, engine: Engine
) -> None:
    started = await begun(engine, chain, "brief_safe")  # may live a second
    again = await chain.restart_agents("boot-2")
    again.refuse_with = Capacity()
    await until_not(engine.active)
    ended = await engine.run(started.run)
    assert ended.error.reason in ("DEADLINE", "AGENT_LOST")  # lost before its end, or after
    assert ended.ended_at.ToNanoseconds() - ended.created_at.ToNanoseconds() >= 1e9
    assert len(await chain.log.endings(ADA, "t1", started.run)) == 1


async def test_an_engine_that_adopts_a_run_can_start_it_again_with_what_is_recorded(
    chain: Chain, engine: Engine
) -> None:
    started = await begun(engine, chain)
    request = chain.agents.runs[started.run].request
    await engine.crash()
    again = await chain.restart_agents("boot-2")
    other = await chain.engine()
    await until_attempt(again, started.run, 2)
    assert again.runs[started.run].request == request
    await again.end(started.run)
    await until_not(other.active)
    assert (await other.run(started.run)).attempt == 2


async def test_an_engine_whose_run_was_adopted_neither_repeats_nor_ends_it(
    chain: Chain, engine: Engine
) -> None:
    started = await begun(engine, chain)

    def adopted(record: UserRecord) -> UserRecord:
        moved = tuple(replace(each, owner="another") for each in record.active)
        return replace(record, active=moved)

    await engine.server.heartbeat.stop()
    await engine.server.clean_up.stop()  # it would adopt it back
    await engine.server.users.change(ADA, adopted)
    again = await chain.restart_agents("boot-2")
    await until_true(lambda: not engine.looks_after(started.run))
    assert again.executed == []
    assert await chain.log.endings(ADA, "t1", started.run) == []
    assert await engine.active() == [started.run]
