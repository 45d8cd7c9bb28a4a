"""Agents that ask their user, as tasks and in processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from factorychain._core.execution_context import UserExecutionContext
from factorychain.agents.v1 import agents_pb2 as pb
from factorychain.errors import InvalidField, RequestAnswered, RequestNotFound, RunNotFound
from factorychain.types.v1.event_pb2 import Event
from tests.integration.agents.conftest import Chain, metadata, serving
from tests.waiting import until_true

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["task", "process"])
async def chain(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[Chain]:
    folder = tmp_path_factory.mktemp("agents")
    module = "tests.integration.agents.user_samples"
    async with serving(folder, module, isolation=request.param, idle_processes_min=1) as started:
        yield started


class Asking:
    """One run that asks."""

    def __init__(
        self,
        chain: Chain,
        text: str,
        agent: str = "asks-user",
        execute: dict[str, str] | None = None,
        **token: Any,
    ) -> None:
        self.chain = chain
        self.ctx: UserExecutionContext = chain.token(agent, **token)
        self.signs: list[pb.RunAlive] = []
        self.life = asyncio.create_task(self._live(text, execute or {}))

    async def _live(self, text: str, fields: dict[str, str]) -> None:
        async for each in self.chain.execute(self.ctx, text, **fields):
            if each.WhichOneof("life") == "alive":
                self.signs.append(each.alive)

    @property
    def events(self) -> list[Event]:
        return self.chain.log.events(self.ctx.run)

    @property
    def kinds(self) -> list[str]:
        return [each.WhichOneof("event") or "" for each in self.events]

    async def asked(self, count: int = 1) -> list[Event]:
        """The first questions."""
        await until_true(lambda: self.kinds.count("input_requested") >= count, 20)
        return [each for each in self.events if each.HasField("input_requested")]

    async def respond(self, request: str, value: object) -> None:
        message = pb.RespondRequest(request=request, value_json=orjson.dumps(value).decode())
        await self.chain.stub.Respond(message, metadata=metadata(self.ctx))

    async def ended(self) -> Event:
        await asyncio.wait_for(self.life, 60)
        return self.events[-1]

    async def output(self) -> Any:
        ending = await self.ended()
        assert ending.HasField("agent_completed"), ending
        return orjson.loads(ending.agent_completed.output_json)


async def test_a_bad_answer_then_a_good_one(chain: Chain) -> None:
    run = Asking(chain, "number")
    (asked,) = await run.asked()
    data = asked.input_requested
    assert (data.request, data.prompt, data.schema_json) == (
        "q1",
        "How many?",
        '{"type":"integer"}',
    )
    # What was said before comes before.
    assert run.kinds == ["agent_started", *["agent_thinking"] * 20, "input_requested"]
    with pytest.raises(InvalidField, match="not of type 'integer'"):
        await run.respond("q1", "many")
    with pytest.raises(RequestNotFound, match="q1"):
        await run.respond("q2", 1)
    await run.respond("q1", 3)
    assert await run.output() == 3
    assert run.kinds[-2:] == ["input_received", "agent_completed"]
    with pytest.raises(RunNotFound):
        await run.respond("q1", 3)


async def test_the_engine_hears_at_once_that_a_run_waits(chain: Chain) -> None:
    run = Asking(chain, "number")
    await until_true(lambda: any(each.waiting for each in run.signs), 20)
    await until_true(lambda: run.signs[-1].waited_ms > 150)
    await run.respond("q1", 1)
    assert await run.output() == 1


async def test_who_attaches_hears_at_once_for_how_long_it_has_waited(chain: Chain) -> None:
    run = Asking(chain, "number")
    await run.asked()
    stream: Any = chain.stub.Attach(pb.AttachRequest(), metadata=metadata(run.ctx))
    accepted, alive = await stream.read(), await stream.read()
    assert (accepted.WhichOneof("life"), alive.alive.waiting) == ("accepted", True)
    stream.cancel()
    await run.respond("q1", 1)
    assert await run.output() == 1


async def test_what_a_tool_asks_belongs_to_its_call(chain: Chain) -> None:
    run = Asking(chain, "tool")
    (asked,) = await run.asked()
    executing = next(each for each in run.events if each.HasField("tool_executing"))
    assert asked.trace == executing.trace
    await run.respond("q1", "here")
    assert await run.output() == "here"


async def test_a_tool_that_needs_approval_begins_with_it(chain: Chain) -> None:
    run = Asking(chain, "approval")
    (asked,) = await run.asked()
    data = asked.input_requested
    assert (data.prompt, data.tool, data.arguments_json) == (
        "Really remove it?",
        "remove",
        '{"path":"/tmp/x"}',
    )
    assert "tool_executing" not in run.kinds
    await run.respond("q1", True)
    assert await run.output() == "removed /tmp/x"
    executing = next(each for each in run.events if each.HasField("tool_executing"))
    assert executing.tool_executing.call == data.call


async def test_a_call_that_is_refused_never_begins(chain: Chain) -> None:
    run = Asking(chain, "approval")
    await run.asked()
    await run.respond("q1", False)
    assert await run.output() == ["REFUSED", "The user refused remove"]
    assert "tool_executing" not in run.kinds


async def test_questions_at_once_and_from_threads(chain: Chain) -> None:
    run, threaded = Asking(chain, "parallel"), Asking(chain, "x", "asks-from-thread")
    asked = await run.asked(3)
    answers = {each.input_requested.prompt: each.input_requested.request for each in asked}
    for prompt in ("2?", "0?", "1?"):
        await run.respond(answers[prompt], prompt)
    assert await run.output() == ["0?", "1?", "2?"]
    await threaded.asked()
    await threaded.respond("q1", {"a": [1]})
    assert await threaded.output() == {"a": [1]}


async def test_equal_request_ids_of_two_runs_are_two_questions(chain: Chain) -> None:
    one, other = Asking(chain, "number"), Asking(chain, "number")
    await one.asked()
    await other.asked()
    await other.respond("q1", 2)
    assert await other.output() == 2
    assert "input_received" not in one.kinds
    await one.respond("q1", 1)
    assert await one.output() == 1


@pytest.mark.parametrize(
    ("way", "output", "closed"),
    [
        ("late", "went on without", "EXPIRED"),
        ("withdraws", "did not want to know", "WITHDRAWN"),
    ],
)
async def test_a_question_that_is_over_is_closed(
    chain: Chain, way: str, output: str, closed: str
) -> None:
    run = Asking(chain, way)
    assert await run.output() == output
    received = next(each for each in run.events if each.HasField("input_received"))
    assert received.input_received.closed == closed


async def test_a_cancel_while_asking_ends_the_run_at_once(chain: Chain) -> None:
    run = Asking(chain, "number")
    await run.asked()
    began = time.monotonic()
    await chain.stub.Cancel(pb.CancelRequest(reason="USER"), metadata=metadata(run.ctx))
    assert (await run.ended()).HasField("agent_cancelled")
    assert time.monotonic() - began < 2
    assert run.events[-2].input_received.closed == "CANCELLED"


async def test_the_lifetime_stands_still_while_it_waits_and_goes_on_then(chain: Chain) -> None:
    await Asking(chain, "late").output()  # what a first run loads is not timed
    deadline_s = time.time() + 1.5
    run = Asking(chain, f"again {deadline_s}", deadline_s=deadline_s)
    await run.asked()
    await asyncio.sleep(max(0.0, deadline_s + 0.5 - time.time()))
    assert "agent_failed" not in run.kinds
    await run.respond("q1", "yes")
    ending = await run.ended()
    assert ending.agent_failed.reason == "DEADLINE"
    assert ending.at.ToNanoseconds() / 1e9 > deadline_s + 0.5


async def test_a_later_token_is_the_runs_from_then_on(chain: Chain) -> None:
    run = Asking(chain, "history")
    await run.asked()
    later = chain.token("asks-user", run.ctx.run[1:].rstrip("z"), deadline_s=time.time() + 4000)
    assert (later.run, later.thread) == (run.ctx.run, run.ctx.thread)
    await chain.stub.Renew(pb.RenewRequest(), metadata=metadata(later))
    live = chain.agents.runs.find(run.ctx)
    assert live.ctx.expires_at_s == later.expires_at_s
    await run.respond("q1", "yes")
    assert await run.output() == 0
    assert chain.engine.tokens[-1].token == later.token
    with pytest.raises(RunNotFound):
        await chain.stub.Renew(pb.RenewRequest(), metadata=metadata(later))


async def test_what_parallel_parts_interrupt_with_is_asked_together(chain: Chain) -> None:
    run = Asking(chain, "stops")
    completed = (await run.ended()).agent_completed
    assert [(each.request, each.prompt) for each in completed.pending] == [("a", "a?"), ("b", "b?")]
    assert completed.output_json == '"to be continued"'
    resumed = Asking(
        chain, "stops", execute={"resumes": run.ctx.run, "resume_json": '{"a":1,"b":[2]}'}
    )
    assert await resumed.output() == {"a": 1, "b": [2]}
    assert resumed.events[0].agent_started.resumes == run.ctx.run


async def test_what_could_never_be_answered_is_a_failure(chain: Chain) -> None:
    failed = (await Asking(chain, "bad").ended()).agent_failed
    assert failed.reason == "INVALID_SCHEMA"
    assert "nonsense" in failed.message


async def test_only_so_many_questions_are_open_at_once(chain: Chain) -> None:
    (problem,) = await Asking(chain, "many").output()
    assert "16 of them at once" in problem


async def test_an_answer_counts_once_whoever_is_faster(chain: Chain) -> None:
    run = Asking(chain, "number")
    await run.asked()
    results = await asyncio.gather(
        *(run.respond("q1", number) for number in range(4)), return_exceptions=True
    )
    assert sum(each is None for each in results) == 1
    assert all(each is None or isinstance(each, RequestAnswered | RunNotFound) for each in results)
    assert await run.output() == results.index(None)
