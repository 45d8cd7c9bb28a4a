"""What a run asks its user: in order, clean, closed at the end."""

from __future__ import annotations

import orjson
import pytest

from factorychain._core.execution_context import UserExecutionContext
from factorychain.types.v1.event_pb2 import (
    AgentCompleted,
    Event,
    InputKind,
    InputReceived,
    InputRequested,
)
from factorychain.types.v1.link_pb2 import RunOpen
from factorychain_emitter.order import OPEN_REQUESTS_MAX
from tests.token_samples import run_context
from tests.unit.emitter.harness import COMPLETED, Harness, started_run, thinking

SECRET = "AKIA" + "IOSFODNN7EXAMPLQ"


def requested(request: str = "q1", **fields: object) -> Event:
    known = {"kind": InputKind.INPUT_KIND_QUESTION, "prompt": "?", **fields}
    return Event(input_requested=InputRequested(request=request, **known))  # type: ignore[arg-type]


def received(request: str = "q1", value_json: str = "1", closed: str = "") -> Event:
    event = Event(input_received=InputReceived(request=request, value_json=value_json))
    if closed:
        event.input_received.closed = closed
    return event


async def test_only_an_open_request_is_answered_and_once() -> None:
    run = started_run()
    run.say(received(), requested(), received(), received(), requested())
    assert run.far.kinds == ["agent_started", "input_requested", "input_received"]
    assert run.reasons == ["REQUEST_NOT_OPEN", "REQUEST_NOT_OPEN", "REQUEST_NOT_UNIQUE"]


async def test_the_ending_closes_what_is_open_in_one_piece_with_itself() -> None:
    run = started_run()
    run.say(requested("q1"), requested("q2"), received("q1"), COMPLETED)
    _, piece = run.far.pieces[-1]
    assert [each.WhichOneof("event") for each in piece] == ["input_received", "agent_completed"]
    closing = piece[0].input_received
    assert (closing.request, closing.value_json, closing.closed) == ("q2", "null", "CANCELLED")


async def test_an_emitter_that_begins_in_the_middle_knows_what_is_open() -> None:
    run = Harness(RunOpen(durable_run_seq=4, resumed=True, open_requests=["q1"]))
    run.say(received("q1"), requested("q1"), received("q2"))
    assert run.far.kinds == ["input_received"]
    assert run.reasons == ["REQUEST_NOT_UNIQUE", "REQUEST_NOT_OPEN"]


async def test_requests_at_once_are_bounded() -> None:
    run = started_run()
    run.say(*(requested(f"q{number}") for number in range(OPEN_REQUESTS_MAX + 1)))
    assert run.reasons == ["TOO_MANY_REQUESTS"]


@pytest.mark.parametrize(
    "event",
    [
        requested(""),
        requested(kind=InputKind.INPUT_KIND_UNSPECIFIED),
        requested(schema_json="[1]"),
        requested(tool=""),
        requested(tool="x", arguments_json="3"),
        requested(call="with space"),
    ],
)
async def test_a_malformed_request_is_refused(event: Event) -> None:
    run = started_run()
    run.say(event)
    assert run.reasons == ["INVALID_FIELD"]


async def test_secrets_are_taken_out_of_questions_and_answers() -> None:
    run = started_run()
    about = {"tool": "send", "arguments_json": orjson.dumps({"key": SECRET}).decode()}
    run.say(requested(prompt=f"Is it {SECRET}?", **about), received(value_json=f'"{SECRET}"'))
    run.say(Event(agent_completed=AgentCompleted(output_json="null", pending=[
        requested("p1", prompt=SECRET, **about).input_requested
    ])))  # fmt: skip
    said = b"".join(each.SerializeToString() for each in run.far.events)
    assert SECRET.encode() not in said
    assert said.count(b"[REDACTED]") == 5


async def test_what_an_ending_waits_for_is_mended_not_rejected() -> None:
    run = started_run()
    pending = requested("p1", kind=InputKind.INPUT_KIND_UNSPECIFIED, tool="x\x00y" * 100)
    pending.input_requested.arguments_json = "no json"
    done = AgentCompleted(output_json="null", pending=[pending.input_requested])
    run.say(Event(agent_completed=done))
    (left,) = run.far.events[-1].agent_completed.pending
    assert (left.request, left.kind) == ("p1", InputKind.INPUT_KIND_QUESTION)
    assert (left.tool, left.arguments_json) == ("", "{}")


async def test_a_later_token_goes_on_to_the_bridge_and_is_as_secret_as_the_first() -> None:
    run = started_run()
    later: UserExecutionContext = run_context(token="the later token of this run")
    run.emitter.renewed(later)
    assert run.far.tokens == [later.token]
    run.say(thinking(f"I have {later.token}"))
    assert later.token not in run.far.events[-1].agent_thinking.text
