"""Users' answers: to runs that ask, and to runs that have ended with what they ask."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
import pytest

from factorychain._core.ids import Principal
from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.errors import (
    InvalidField,
    RequestAnswered,
    RequestClosed,
    RequestNotFound,
    RunNotFound,
    ThreadBusy,
    UserEngineLimit,
)
from factorychain.types.v1.event_pb2 import Event, InputKind, InputRequested
from factorychain.types.v1.run_pb2 import RunState
from tests.engine_harness import BOB, Chain, Engine
from tests.engine_peers import completed, interrupted
from tests.token_samples import ADA
from tests.waiting import until_not, until_true

CITY = InputRequested(
    request="city",
    kind=InputKind.INPUT_KIND_QUESTION,
    prompt="Which city?",
    schema_json='{"type":"string"}',
)
SURE = InputRequested(request="sure", kind=InputKind.INPUT_KIND_APPROVAL, prompt="Sure?")


async def respond(
    engine: Engine, run: str, request: str, value: object, principal: Principal = ADA
) -> pb.RespondToRunResponse:
    message = pb.RespondToRunRequest(
        run=run, request=request, value_json=orjson.dumps(value).decode()
    )
    answer: pb.RespondToRunResponse = await engine.stub.RespondToRun(
        message, metadata=engine.as_user(principal)
    )
    return answer


async def asking(chain: Chain, engine: Engine, *requests: str, **fields: Any) -> str:
    """A run that asks."""
    run: str = (await engine.start_run(**fields)).run
    chain.agents.runs[run].open_requests += requests
    return run


async def waiting_ended(
    chain: Chain, engine: Engine, *requests: InputRequested, thread: str = "t1"
) -> str:
    """A run that has ended with what it asks."""
    run: str = (await engine.start_run(thread=thread, metadata_json='{"of":"ada"}')).run
    await chain.agents.end(run, interrupted(*requests))
    await until_not(engine.active)
    return run


async def test_an_answer_reaches_the_run_that_asks(chain: Chain, engine: Engine) -> None:
    run = await asking(chain, engine, "q1", thread="t1")
    answer = await respond(engine, run, "q1", {"a": 1})
    assert (answer.run, answer.thread, answer.epoch, list(answer.open)) == (run, "t1", 0, [])
    assert chain.agents.runs[run].answers == [("q1", '{"a":1}')]
    with pytest.raises(RequestNotFound) as caught:
        await respond(engine, run, "q7", 1)
    assert caught.value.names == ("q1",)


async def test_it_does_so_through_an_engine_that_does_not_have_the_run(
    chain: Chain, engine: Engine
) -> None:
    run = await asking(chain, engine, "q1")
    other = await chain.engine()
    assert (await respond(other, run, "q1", "yes")).run == run
    assert chain.agents.runs[run].answers == [("q1", '"yes"')]


async def test_nobody_else_can_answer_and_equal_request_ids_are_two(
    chain: Chain, engine: Engine
) -> None:
    adas, bobs = await asking(chain, engine, "q1"), ""
    bobs = await asking(chain, engine, "q1", principal=BOB)
    for run, principal in ((adas, BOB), (bobs, ADA)):
        with pytest.raises(RunNotFound):
            await respond(engine, run, "q1", 1, principal)
    await respond(engine, adas, "q1", "ada's")
    await respond(engine, bobs, "q1", "bob's", BOB)
    assert chain.agents.runs[adas].answers == [("q1", '"ada\'s"')]
    assert chain.agents.runs[bobs].answers == [("q1", '"bob\'s"')]


async def test_what_was_answered_is_known_when_the_run_has_ended(
    chain: Chain, engine: Engine
) -> None:
    run = await asking(chain, engine, "q1", thread="t1")
    answered, expired = Event(), Event()
    answered.input_received.request, answered.input_received.value_json = "q1", "[1, 2]"
    expired.input_received.request, expired.input_received.closed = "q2", "EXPIRED"
    ctx = chain.agents.runs[run].ctx
    assert await chain.log.append(ctx, answered, expired)
    await chain.agents.end(run, completed())
    await until_not(engine.active)
    assert (await respond(engine, run, "q1", [1, 2])).run == run
    for request, value, error in (
        ("q1", [1], RequestAnswered),
        ("q2", 1, RequestClosed),
        ("q3", 1, RequestNotFound),
    ):
        with pytest.raises(error):
            await respond(engine, run, request, value)


async def test_the_last_answer_to_an_ended_run_starts_the_next_one(
    chain: Chain, engine: Engine
) -> None:
    run = await waiting_ended(chain, engine, CITY, SURE)
    assert [each.request for each in (await engine.run(run)).pending] == ["city", "sure"]
    with pytest.raises(InvalidField, match="3 is not of type 'string'"):
        await respond(engine, run, "city", 3)
    first = await respond(engine, run, "sure", True)
    assert (first.run, list(first.open)) == (run, ["city"])
    assert await engine.active() == []
    last = await respond(engine, run, "city", "Turin")
    assert last.run != run
    assert (last.thread, last.after, last.existing) == ("t1", 2, False)
    request = chain.agents.runs[last.run].request
    assert request.resumes == run
    assert orjson.loads(request.resume_json) == {"city": "Turin", "sure": True}
    assert (request.input_json, request.metadata_json) == ('{"text":"Why?"}', '{"of":"ada"}')
    await chain.agents.end(last.run)
    ended = await engine.run(last.run)
    assert (ended.resumes, ended.state) == (run, RunState.RUN_STATE_COMPLETED)
    assert {each.request: each.value_json for each in (await engine.run(run)).answers} == {
        "city": '"Turin"',
        "sure": "true",
    }


async def test_the_same_answers_again_start_nothing_more(chain: Chain, engine: Engine) -> None:
    other = await chain.engine()
    run = await waiting_ended(chain, engine, CITY)
    answers = await asyncio.gather(
        *(respond(each, run, "city", "Turin") for each in (engine, other) * 3)
    )
    assert len({each.run for each in answers}) == 1
    with pytest.raises(RequestAnswered):
        await respond(engine, run, "city", "Oslo")
    await chain.agents.end(answers[0].run)
    await until_not(engine.active)
    assert (await respond(engine, run, "city", "Turin")).run == answers[0].run
    assert len(chain.agents.executed) == 2


async def test_of_two_answers_at_once_one_counts(chain: Chain, engine: Engine) -> None:
    other = await chain.engine()
    run = await waiting_ended(chain, engine, CITY)
    results = await asyncio.gather(
        respond(engine, run, "city", "Turin"),
        respond(other, run, "city", "Oslo"),
        return_exceptions=True,
    )
    taken = [each for each in results if isinstance(each, pb.RespondToRunResponse)]
    assert len(taken) == 1
    assert sum(isinstance(each, RequestAnswered) for each in results) == 1


async def test_without_a_place_the_answer_is_kept_also_when_its_engine_dies(
    chain: Chain, engine: Engine
) -> None:
    run = await waiting_ended(chain, engine, CITY)
    holder = await engine.start_run(thread="t1")
    with pytest.raises(ThreadBusy):
        await respond(engine, run, "city", "Turin")
    others = [(await engine.start_run()).run]
    await chain.agents.end(holder.run)
    others.append((await engine.start_run()).run)
    with pytest.raises(UserEngineLimit):
        await respond(engine, run, "city", "Turin")
    await engine.crash()
    second = await chain.engine()
    await chain.agents.end(others[0])
    found = await respond(second, run, "city", "Turin")
    assert chain.agents.runs[found.run].request.resume_json == '{"city":"Turin"}'


async def test_an_ended_run_is_nobody_elses_to_answer(chain: Chain, engine: Engine) -> None:
    run = await waiting_ended(chain, engine, CITY)
    with pytest.raises(RunNotFound):
        await respond(engine, run, "city", "Turin", BOB)
    assert list((await engine.run(run)).answers) == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"request": "q1", "value_json": "no json"}, "value"),
        ({"request": "q1", "value_json": '"' + "x" * 61_440 + '"'}, "value"),
        ({"value_json": "1"}, "request"),
    ],
)
async def test_what_is_no_answer_is_refused(
    chain: Chain, engine: Engine, fields: dict[str, str], field: str
) -> None:
    run = await asking(chain, engine, "q1")
    with pytest.raises(InvalidField) as caught:
        await engine.stub.RespondToRun(
            pb.RespondToRunRequest(run=run, **fields), metadata=engine.as_user(ADA)
        )
    assert caught.value.field == field


async def test_a_run_that_waits_lives_past_its_lifetime_with_a_later_token(
    chain: Chain, engine: Engine
) -> None:
    run = (await engine.start_run(agent="brief", thread="t1")).run  # may live half a second
    there = chain.agents.runs[run]
    there.wait()
    await until_true(lambda: there.renewed)
    renewed = there.renewed[0]
    assert renewed.expires_at_s > there.ctx.expires_at_s + 250
    assert (renewed.run, renewed.attempt, renewed.scope) == (run, 1, there.ctx.scope)
    # Another engine has not heard that it waits, and must not end it.
    await engine.crash()
    other = await chain.engine()
    await until_true(lambda: other.looks_after(run), 20)
    passes = other.server.clean_up.passes
    await other.until_passes(passes + 3)
    assert there.cancel_reasons == []
    there.waited_s = time.time() - there.ctx.deadline_s + 0.4
    there.waiting_since_s = None
    await until_not(other.active)
    assert set(there.cancel_reasons) == {"DEADLINE"}


async def test_waiting_has_a_maximum(chain: Chain) -> None:
    engine = await chain.engine(ask_max_s=1)
    run = (await engine.start_run(agent="brief")).run
    began_s = time.monotonic()
    chain.agents.runs[run].wait()
    assert chain.agents.runs[run].ctx.limits["ask_s"] == 1
    await until_not(engine.active)
    assert 1.0 < time.monotonic() - began_s < 6
    assert set(chain.agents.runs[run].cancel_reasons) == {"DEADLINE"}
