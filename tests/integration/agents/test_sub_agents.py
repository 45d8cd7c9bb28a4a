"""Agents inside of agents, as tasks and in processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from factorychain._core.ids import Principal
from factorychain.agents.v1 import agents_pb2 as pb
from factorychain.types.v1.event_pb2 import Event
from tests.integration.agents import team_samples
from tests.integration.agents.conftest import Chain, metadata, serving
from tests.waiting import until_true

MODULE = "tests.integration.agents.team_samples"


pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["task", "process"])
async def chain(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[Chain]:
    folder = tmp_path_factory.mktemp("agents")
    async with serving(
        folder, MODULE, isolation=request.param, idle_processes_min=1, cancel_grace_s=5
    ) as started:
        yield started


def output_of(events: list[Event]) -> Any:
    assert events[-1].HasField("agent_completed"), events[-1]
    return orjson.loads(events[-1].agent_completed.output_json)


def said(events: list[Event]) -> dict[tuple[str, ...], list[str]]:
    """The kinds of events by path, in order."""
    found: dict[tuple[str, ...], list[str]] = {}
    for each in events:
        found.setdefault(tuple(each.path), []).append(each.WhichOneof("event") or "")
    return found


async def test_sub_agents_share_the_run_and_say_where_they_are(chain: Chain) -> None:
    for user in ("ada", "bob"):
        ctx = chain.token("lead", principal=Principal("acme", user), thread="t1")
        events = await chain.run(ctx, "work")
        output = output_of(events)
        assert len({tuple(each) for each in output}) == 1  # one process, one run
        assert output[0][1] == ctx.run
        inside = ["agent_thinking", "tool_executing", "tool_completed"]
        told = said(events)
        assert told.pop(("worker",)) == told.pop(("second",)) == inside
        pairs = ["tool_executing", "tool_completed"] * 2
        own = told.pop(())
        assert sorted(own) == sorted(["agent_started", *pairs, "agent_completed"])
        assert told == {}
        calls = [each.tool_executing.call for each in events if each.HasField("tool_executing")]
        assert len(set(calls)) == 4
        thoughts = {each.agent_thinking.text for each in events if each.HasField("agent_thinking")}
        assert thoughts == {f"left in {user}'s t1", f"right in {user}'s t1"}
        assert chain.log.run_seqs(ctx.run) == list(range(1, len(events) + 1))


async def test_a_cancel_reaches_a_sub_agent(chain: Chain) -> None:
    ctx = chain.token("lead")
    call = chain.execute(ctx, "hang")
    await until_true(lambda: len(chain.log.events(ctx.run)) == 3)
    await chain.stub.Cancel(pb.CancelRequest(reason="USER"), metadata=metadata(ctx))
    _ = [each async for each in call]
    events = chain.log.events(ctx.run)
    assert said(events) == {
        (): ["agent_started", "tool_executing", "tool_completed", "agent_cancelled"],
        ("worker",): ["agent_thinking", "agent_thinking"],
    }
    assert events[-2].tool_completed.error.reason == "CANCELLED"


async def test_what_a_sub_agent_asks_and_the_answer_have_its_path(chain: Chain) -> None:
    ctx = chain.token("lead")
    call = chain.execute(ctx, "ask")
    await until_true(lambda: len(chain.log.events(ctx.run)) == 3)
    request = chain.log.events(ctx.run)[-1].input_requested.request
    answer = pb.RespondRequest(request=request, value_json="3")
    await chain.stub.Respond(answer, metadata=metadata(ctx))
    _ = [each async for each in call]
    events = chain.log.events(ctx.run)
    assert output_of(events) == 3
    assert said(events)["asker",] == ["input_requested", "input_received"]


async def test_what_may_do_more_is_refused_with_the_attribute(chain: Chain) -> None:
    isolation = chain.agents.settings.isolation
    refusals = output_of(await chain.run(chain.token("lead"), "refused"))
    by_agent = dict(zip(team_samples.REFUSED, refusals, strict=True))
    if isolation == "process":
        assert "network_ports: it declares 9999" in by_agent["ports"]
        assert "read_paths: it declares /somewhere/else" in by_agent["reads"]
        assert "env: it declares SOME_TOKEN" in by_agent["variables"]
        assert "isolation: its runs are tasks" in by_agent["trusted"]
        assert by_agent["confined"] == "it ran"
    else:
        # A task is not confined: there is nothing to be wider than.
        assert [by_agent[name] for name in ("ports", "reads", "variables", "trusted")] == [
            "it ran"
        ] * 4
        assert "isolation: its runs have processes" in by_agent["confined"]
    assert refusals[-1].startswith("AGENT_NOT_FOUND")
    assert "worker" in refusals[-1]


async def test_processes_that_are_started_run_others_and_forked_ones_say_why_they_do_not(
    tmp_path: Path,
) -> None:
    threaded = "tests.integration.agents.team_threaded_samples"
    async with serving(tmp_path, MODULE, threaded, isolation="process") as chain:
        output = output_of(await chain.run(chain.token("lead-threaded"), "work"))
        assert len({pid for pid, _ in output}) == 1
        refusal = output_of(await chain.run(chain.token("asks"), "lead-threaded"))
        assert "lead-threaded cannot be run inside of this run: it cannot be forked" in refusal
