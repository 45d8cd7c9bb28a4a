"""Runs over real sockets: Execute, Attach, Cancel, and what reaches the emitter."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain.agents.v1 import agents_pb2 as pb
from factorychain.errors import FactoryChainError, RunEnded, RunNotFound
from factorychain.types.v1.event_pb2 import Event
from factorychain.types.v1.run_pb2 import RunState
from factorychain_agents.output import OutputCapture
from tests.integration.agents import samples
from tests.integration.agents.conftest import MODULE, Chain, metadata, refusal, serving
from tests.waiting import until


def kind_of(event: Event) -> str:
    return event.WhichOneof("event") or ""


async def first(call: Any) -> Any:
    return await anext(aiter(call))


async def until_said(chain: Chain, run: str, kind: str) -> None:
    await chain.log.wait_for(lambda: kind in chain.log.kinds(run))


async def test_a_run_says_the_five_events_in_order_and_numbers_them_densely(chain: Chain) -> None:
    ctx = chain.token("five")
    events = await chain.run(ctx, "a word")
    assert [kind_of(each) for each in events] == [
        "agent_started",
        "agent_thinking",
        "tool_executing",
        "tool_completed",
        "message_delta",
        "agent_completed",
    ]
    assert chain.log.run_seqs(ctx.run) == [1, 2, 3, 4, 5, 6]
    assert orjson.loads(events[3].tool_completed.result_json) == {"seen": "a word", "by": "ada"}
    done = events[-1].agent_completed
    assert (orjson.loads(done.output_json), done.message) == (
        "a word",
        events[4].message_delta.message,
    )


async def test_the_first_message_names_the_replica_and_the_last_how_the_run_ended(
    chain: Chain,
) -> None:
    messages = [each async for each in chain.execute(chain.token("five"))]
    accepted = messages[0].accepted
    assert accepted.address == chain.agents.server.address
    assert accepted.boot_id == chain.agents.boot.boot_id
    assert messages[-1].finished.state == RunState.RUN_STATE_COMPLETED


async def test_every_event_carries_one_trace_and_a_tool_call_a_span_of_its_own(
    chain: Chain,
) -> None:
    events = await chain.run(chain.token("five"))
    parts = [each.trace.split("-") for each in events]
    assert len({trace for _, trace, _, _ in parts}) == 1
    spans = {kind_of(event): part[2] for event, part in zip(events, parts, strict=True)}
    assert spans["agent_started"] == spans["agent_thinking"] == spans["agent_completed"]
    assert spans["tool_executing"] == spans["tool_completed"] != spans["agent_started"]


async def test_a_second_execute_of_an_attempt_is_refused_also_after_its_end(chain: Chain) -> None:
    ctx = chain.token("five")
    await chain.run(ctx)
    error = await refusal(chain.execute(ctx))
    assert error.reason == "RUN_EXISTS"
    assert chain.log.kinds(ctx.run).count("agent_started") == 1


async def test_of_two_equal_executes_at_once_one_is_accepted(chain: Chain) -> None:
    ctx = chain.token("five")
    both = [chain.execute(ctx), chain.execute(ctx)]
    found = await asyncio.gather(*(first(each) for each in both), return_exceptions=True)
    assert sorted(type(each).__name__ for each in found) == ["ExecuteResponse", "RunExists"]


async def test_the_end_of_the_stream_does_not_end_the_run_and_attach_carries_it_on(
    chain: Chain,
) -> None:
    ctx = chain.token("waits")
    call = chain.execute(ctx)
    assert (await first(call)).accepted.boot_id
    call.cancel()
    await until_said(chain, ctx.run, "tool_executing")
    attached = chain.stub.Attach(pb.AttachRequest(), metadata=metadata(ctx))
    seen = []
    async for message in attached:
        seen.append(message.WhichOneof("life"))
        if seen[-1] == "alive":
            await chain.stub.Cancel(pb.CancelRequest(reason="USER"), metadata=metadata(ctx))
    assert seen[0] == "accepted"
    assert seen[-1] == "finished"
    assert chain.log.kinds(ctx.run)[-1] == "agent_cancelled"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("USER", "agent_cancelled"),
        ("INTERRUPTED", "agent_cancelled"),
        ("DEADLINE", "agent_failed"),
        ("UNRESPONSIVE", "agent_failed"),
    ],
)
async def test_a_cancel_reaches_the_code_closes_its_calls_and_ends_by_its_reason(
    chain: Chain, reason: str, kind: str
) -> None:
    ctx = chain.token("waits")
    call = chain.execute(ctx)
    await first(call)
    await until_said(chain, ctx.run, "tool_executing")
    await chain.stub.Cancel(pb.CancelRequest(reason=reason), metadata=metadata(ctx))
    last = [each async for each in call][-1]
    assert last.WhichOneof("life") == "finished"
    events = chain.log.events(ctx.run)
    assert [kind_of(each) for each in events[-2:]] == ["tool_completed", kind]
    assert events[-2].tool_completed.error.reason == "CANCELLED"
    assert getattr(events[-1], kind).reason == reason


async def test_an_agent_that_swallows_its_cancel_is_abandoned_and_ends_all_the_same(
    chain: Chain,
) -> None:
    samples.closed.clear()
    ctx = chain.token("stubborn")
    call = chain.execute(ctx)
    await first(call)
    await until_said(chain, ctx.run, "agent_thinking")
    await chain.stub.Cancel(pb.CancelRequest(reason="USER"), metadata=metadata(ctx))
    assert [each async for each in call][-1].finished.state == RunState.RUN_STATE_CANCELLED
    assert chain.log.kinds(ctx.run)[-1] == "agent_cancelled"
    assert chain.agents.executor.running == 1
    # What was made for it does not wait for its code.
    await until(_true_if(lambda: ctx.run in samples.closed))
    samples.stubborn.set()
    await until(_true_if(lambda: chain.agents.executor.running == 0))
    samples.stubborn.clear()
    assert samples.closed.count(ctx.run) == 1
    assert chain.log.kinds(ctx.run).count("agent_thinking") == 1


async def test_the_deadline_in_the_token_ends_a_run(chain: Chain) -> None:
    ctx = chain.token("waits", deadline_s=time.time() + 0.3)
    events = await chain.run(ctx)
    assert events[-1].agent_failed.reason == "DEADLINE"
    assert events[-1].agent_failed.retryable


@pytest.mark.parametrize(
    ("how", "reason", "message"),
    [
        ("agent", "LOOKUP_DOWN", "the lookup is down"),
        ("tool", "AGENT_FAILED", "The agent failed (run "),
        ("bug", "AGENT_FAILED", "The agent failed (run "),
        ("exit", "AGENT_FAILED", "The agent failed (run "),
        ("big", "AGENT_FAILED", "The agent failed (run "),
    ],
)
async def test_only_text_meant_for_users_reaches_them(
    chain: Chain, how: str, reason: str, message: str
) -> None:
    events = await chain.run(chain.token("fails"), how)
    failed = events[-1].agent_failed
    assert failed.reason == reason
    assert failed.message.startswith(message)
    assert not any(b"a detail of the code" in each.SerializeToString() for each in events)


async def test_each_run_has_dependencies_of_its_own_and_shares_what_is_shared(chain: Chain) -> None:
    samples.closed.clear()
    before = samples.Shared.made
    runs = [chain.token("five", principal=Principal("acme", user)) for user in ("ada", "bob")]
    await asyncio.gather(*(chain.run(ctx) for ctx in runs))
    assert sorted(samples.closed) == sorted(ctx.run for ctx in runs)
    assert samples.Shared.made == before
    users = [
        orjson.loads(chain.log.events(ctx.run)[3].tool_completed.result_json)["by"] for ctx in runs
    ]
    assert users == ["ada", "bob"]


async def test_an_agent_that_misses_something_is_listed_and_refuses_with_its_name(
    chain: Chain,
) -> None:
    listed = await chain.stub.ListAgents(pb.ListAgentsRequest())
    by_name = {each.name: each for each in listed.agents}
    missing = f"{samples.__name__}.Missing"
    assert not by_name["incomplete"].available
    assert list(by_name["incomplete"].missing) == [missing]
    assert by_name["researcher"].available
    assert by_name["five"].available
    error = await refusal(chain.execute(chain.token("incomplete")))
    assert error.reason == "AGENT_DEPENDENCY_MISSING"
    assert missing in error.names


async def test_what_an_agent_takes_is_listed_and_checked_before_it_is_accepted(
    chain: Chain,
) -> None:
    listed = await chain.stub.ListAgents(pb.ListAgentsRequest())
    schema = next(each for each in listed.agents if each.name == "takes").input_schema_json
    assert orjson.loads(schema)["properties"]["data"]["required"] == ["item"]
    events = await chain.run(chain.token("takes"), {"data": {"item": "tea", "count": 2}})
    assert orjson.loads(events[-1].agent_completed.output_json) == "2 tea"
    bad = chain.token("takes")
    error = await refusal(chain.execute(bad, {"data": {"count": 2}}))
    assert error.reason == "INVALID_FIELD"
    assert chain.log.kinds(bad.run) == []


async def test_an_unknown_agent_is_refused(chain: Chain) -> None:
    assert (await refusal(chain.execute(chain.token("nobody")))).reason == "AGENT_NOT_FOUND"


async def test_someone_elses_token_finds_nothing_of_a_run(chain: Chain) -> None:
    ctx = chain.token("waits", run="same")
    call = chain.execute(ctx)
    await first(call)
    thief = chain.token("waits", run="same", principal=Principal("acme", "eve"))
    with pytest.raises(FactoryChainError) as caught:
        await chain.stub.Cancel(pb.CancelRequest(reason="USER"), metadata=metadata(thief))
    assert caught.value.reason == "RUN_NOT_FOUND"
    error = await refusal(chain.stub.Attach(pb.AttachRequest(), metadata=metadata(thief)))
    assert error.reason == "RUN_NOT_FOUND"
    call.cancel()


async def test_history_is_asked_for_with_the_runs_own_token(chain: Chain) -> None:
    ctx = chain.token("remembers")
    chain.engine.history[ctx.thread] = ["one", "two"]
    events = await chain.run(ctx)
    assert orjson.loads(events[-1].agent_completed.output_json) == ["one", "two"]
    assert [each.run for each in chain.engine.tokens] == [ctx.run]


async def test_what_an_agent_prints_and_its_tracebacks_are_shown_with_the_run(
    chain: Chain, capsys: pytest.CaptureFixture[str]
) -> None:
    # Once more: pytest has exchanged the streams since the service started.
    output = OutputCapture(as_json=False)
    await output.start()
    samples.leak.set("of another run")
    ctx = chain.token("prints")
    events = await chain.run(ctx, "aloud")
    assert orjson.loads(events[-1].agent_completed.output_json) == ""
    failing = chain.token("fails")
    await chain.run(failing, "bug")
    await output.stop()
    lines = capsys.readouterr().err.splitlines()
    assert any(ctx.run in line and "printed aloud" in line for line in lines)
    assert any(failing.run in line and "a detail of the code" in line for line in lines)


async def test_a_run_that_the_log_says_is_over_is_stopped_here(chain: Chain) -> None:
    chain.log.refuse_openings_with = RunEnded()
    ctx = chain.token("waits")
    messages = [each.WhichOneof("life") async for each in chain.execute(ctx)]
    assert messages[-1] == "finished"
    assert chain.log.kinds(ctx.run) == []
    assert len(chain.agents.runs) == 0


async def test_finished_comes_only_after_the_ending_is_durable(chain: Chain) -> None:
    chain.log.acknowledging = False
    ctx = chain.token("five")
    call = chain.execute(ctx)
    reading = asyncio.ensure_future(_all(call))
    await until_said(chain, ctx.run, "agent_completed")
    await until(_true_if(lambda: chain.agents.executor.running == 0))
    assert not reading.done()
    chain.log.acknowledge()
    assert (await reading)[-1].WhichOneof("life") == "finished"


async def test_a_run_of_which_nothing_is_confirmed_ends_and_its_ending_waits_for_the_path(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, MODULE, isolation="task", outage_max_s=1) as chain:
        confirmed, cut = chain.token("waits"), chain.token("waits")
        going_on = asyncio.ensure_future(_all(chain.execute(confirmed)))
        await until(_true_if(lambda: _durable(chain, confirmed) == 3))
        chain.log.acknowledging = False
        reading = asyncio.ensure_future(_all(chain.execute(cut)))
        await until_said(chain, cut.run, "agent_failed")
        failed = chain.log.events(cut.run)[-1].agent_failed
        assert (failed.reason, failed.retryable) == ("CHAIN_DEGRADED", True)
        assert not reading.done()
        # It has said nothing meanwhile that would have to be confirmed.
        assert chain.log.kinds(confirmed.run) == [
            "agent_started",
            "agent_thinking",
            "tool_executing",
        ]
        chain.log.acknowledge()
        assert (await reading)[-1].WhichOneof("life") == "finished"
        assert len(chain.agents.runs) == 1
        request = pb.CancelRequest(reason="USER")
        await chain.stub.Cancel(request, metadata=metadata(confirmed))
        await going_on


def _durable(chain: Chain, ctx: UserExecutionContext) -> int:
    host = chain.agents.runs.find(ctx)._host if len(chain.agents.runs) else None
    return host.durable_run_seq if host is not None else 0


async def test_nothing_is_left_of_runs_that_ended(chain: Chain) -> None:
    samples.stubborn.clear()
    runs = [chain.token(agent) for agent in ("five", "fails", "prints") * 10]
    await asyncio.gather(*(chain.run(ctx) for ctx in runs))
    assert len(chain.agents.runs) == 0
    assert chain.agents.executor.running == 0
    assert chain.agents.link.runs == 0


async def test_a_burst_arrives_complete_and_in_order(chain: Chain) -> None:
    ctx = chain.token("bursts")
    events = await chain.run(ctx, "3000")
    thoughts = [each.agent_thinking.text for each in events if kind_of(each) == "agent_thinking"]
    assert thoughts == [f"step {n} of what the agent is about to do next" for n in range(3000)]
    assert chain.log.run_seqs(ctx.run) == list(range(1, 3003))


async def test_stopping_ends_what_runs_as_lost(chain: Chain) -> None:
    ctx = chain.token("waits")
    call = chain.execute(ctx)
    await first(call)
    await until_said(chain, ctx.run, "tool_executing")
    await chain.agents.runs.stop()
    ending = chain.log.events(ctx.run)[-1].agent_failed
    assert ending.reason == "AGENT_LOST"
    assert ending.retryable
    error = await refusal(chain.execute(chain.token("five")))
    assert error.reason == "CHAIN_DEGRADED"


async def test_stopping_hands_over_what_can_begin_again_elsewhere(chain: Chain) -> None:
    ctx = chain.token("waits", limits={"attempts": 2})
    call = chain.execute(ctx)
    await first(call)
    await until_said(chain, ctx.run, "tool_executing")
    await chain.agents.runs.stop()
    with pytest.raises(RunNotFound):
        await _all(call)
    assert "agent_failed" not in chain.log.kinds(ctx.run)


async def _all(call: Any) -> list[Any]:
    return [each async for each in call]


def _true_if(condition: Any) -> Any:
    async def ask() -> bool:
        return bool(condition())

    return ask
