"""The JSON of events, type by type, against the rules of the protocol."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from factorychain._core.event_json import (
    event_json,
    events_frame,
    message_object,
    rfc3339,
)
from factorychain._core.event_kinds import KINDS
from factorychain.types.v1 import event_pb2 as pb
from factorychain.types.v1.run_pb2 import RUN_STATE_RUNNING, AgentInfo, Run
from tests.event_reader import event_from_json, message_from_json

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NO_USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "cached_input_tokens": 0,
    "reasoning_tokens": 0,
    "requests": 0,
}
AT = Timestamp(seconds=1_763_800_000, nanos=123_456_000)
AT_TEXT = "2025-11-22T08:26:40.123456Z"

# What each type prints when nothing is set in it, and when everything is.
EMPTY: dict[str, dict[str, Any]] = {
    "agent_started": {"agent": "", "input": None, "metadata": {}, "attempt": 0},
    "agent_thinking": {"text": ""},
    "tool_executing": {"call": "", "tool": "", "arguments": {}},
    "tool_completed": {
        "call": "",
        "tool": "",
        "ok": False,
        "result": None,
        "truncated": False,
        "duration_ms": 0,
    },
    "agent_completed": {"output": None, "pending": [], "duration_ms": 0, "usage": NO_USAGE},
    "agent_failed": {"reason": "", "message": "", "retryable": False, "usage": NO_USAGE},
    "agent_cancelled": {"reason": "", "usage": NO_USAGE},
    "message_delta": {"message": "", "text": ""},
    "thinking_delta": {"message": "", "text": ""},
    "tool_progress": {"call": "", "data": None},
    "input_requested": {"request": "", "kind": "unspecified", "prompt": "", "schema": {}},
    "input_received": {"request": "", "value": None},
    "run_queued": {"position": 0, "input": None},
    "custom": {"name": "", "data": None},
}
REQUESTED = pb.InputRequested(
    request="q1",
    kind=pb.INPUT_KIND_APPROVAL,
    prompt="Delete it?",
    schema_json='{"type":"boolean"}',
    expires_at=AT,
)
REQUESTED_JSON = {
    "request": "q1",
    "kind": "approval",
    "prompt": "Delete it?",
    "schema": {"type": "boolean"},
    "expires_at": AT_TEXT,
}
FULL: dict[str, tuple[Any, dict[str, Any]]] = {
    "agent_started": (
        pb.AgentStarted(
            agent="researcher",
            input_json='{"text":"é"}',
            metadata_json='{"a":1}',
            attempt=2,
            replaces="r0",
        ),
        {
            "agent": "researcher",
            "input": {"text": "é"},
            "metadata": {"a": 1},
            "attempt": 2,
            "replaces": "r0",
        },
    ),
    "agent_thinking": (pb.AgentThinking(text='say "x"\n'), {"text": 'say "x"\n'}),
    "tool_executing": (
        pb.ToolExecuting(call="c1", tool="search", arguments_json='{"q":"x"}', message=""),
        {"call": "c1", "tool": "search", "arguments": {"q": "x"}, "message": ""},
    ),
    "tool_completed": (
        pb.ToolCompleted(
            call="c1",
            tool="search",
            ok=True,
            result_json="[1.5,null,true]",
            error=pb.ToolFailure(reason="TOOL_ERROR", message="no"),
            truncated=True,
            duration_ms=2**53 - 1,
        ),
        {
            "call": "c1",
            "tool": "search",
            "ok": True,
            "result": [1.5, None, True],
            "error": {"reason": "TOOL_ERROR", "message": "no"},
            "truncated": True,
            "duration_ms": 2**53 - 1,
        },
    ),
    "agent_completed": (
        pb.AgentCompleted(
            output_json='"done"',
            message="m1",
            pending=[REQUESTED],
            duration_ms=12,
            usage=pb.Usage(input_tokens=3),
        ),
        {
            "output": "done",
            "message": "m1",
            "pending": [REQUESTED_JSON],
            "duration_ms": 12,
            "usage": NO_USAGE | {"input_tokens": 3},
        },
    ),
    "agent_failed": (
        pb.AgentFailed(reason="AGENT_LOST", message="gone", retryable=True, retry_after_s=1.5),
        {
            "reason": "AGENT_LOST",
            "message": "gone",
            "retryable": True,
            "retry_after_s": 1.5,
            "usage": NO_USAGE,
        },
    ),
    "agent_cancelled": (pb.AgentCancelled(reason="USER"), {"reason": "USER", "usage": NO_USAGE}),
    "message_delta": (pb.MessageDelta(message="m", text="t"), {"message": "m", "text": "t"}),
    "thinking_delta": (pb.ThinkingDelta(message="m", text="t"), {"message": "m", "text": "t"}),
    "tool_progress": (
        pb.ToolProgress(call="c1", data_json='{"done":0.5}'),
        {"call": "c1", "data": {"done": 0.5}},
    ),
    "input_requested": (REQUESTED, REQUESTED_JSON),
    "input_received": (
        pb.InputReceived(request="q1", value_json="false"),
        {"request": "q1", "value": False},
    ),
    "run_queued": (
        pb.RunQueued(position=3, input_json='{"text":"x"}'),
        {"position": 3, "input": {"text": "x"}},
    ),
    "custom": (pb.Custom(name="n", data_json="0"), {"name": "n", "data": 0}),
}


def made(kind: str, part: Any) -> pb.Event:
    event = pb.Event(at=AT, trace=TRACE)
    getattr(event, kind).CopyFrom(part)
    getattr(event, kind).SetInParent()
    return event


def read(event: pb.Event) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(event_json(event, 17, "r1"))
    return found


def test_every_type_is_covered_here() -> None:
    assert EMPTY.keys() == FULL.keys() == KINDS


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_fields_without_presence_are_always_printed(kind: str) -> None:
    empty = type(getattr(pb.Event(), kind))()
    assert read(made(kind, empty))["data"] == EMPTY[kind]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_full_event_prints_every_field_of_its_type(kind: str) -> None:
    part, data = FULL[kind]
    assert read(made(kind, part)) == {
        "seq": 17,
        "run": "r1",
        "type": kind,
        "at": AT_TEXT,
        "data": data,
        "trace": TRACE,
    }


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_event_read_from_its_json_prints_the_same_json(kind: str) -> None:
    first = event_json(made(kind, FULL[kind][0]), 17, "r1")
    event = event_from_json(orjson.loads(first))
    assert (event.seq, event.run, event.WhichOneof("event")) == (17, "r1", kind)
    assert event_json(event, event.seq, event.run) == first


def test_path_appears_only_for_sub_agents() -> None:
    event = made("agent_thinking", pb.AgentThinking(text="x"))
    assert "path" not in read(event)
    event.path.extend(["planner", "writer"])
    assert read(event)["path"] == ["planner", "writer"]
    assert list(event_from_json(read(event)).path) == ["planner", "writer"]


@given(st.text())
def test_any_text_in_a_json_field_leaves_the_frame_valid(text: str) -> None:
    events = [
        made("custom", pb.Custom(name="n", data_json=text)),
        made("agent_thinking", EMPTY_TEXT),
    ]
    frame = orjson.loads(events_frame("t", 5, 7, "r1", events))
    assert [event["seq"] for event in frame["events"]] == [7, 8]
    assert set(frame["events"][0]) == {"seq", "run", "type", "at", "data", "trace"}
    assert set(frame["events"][0]["data"]) == {"name", "data"}


EMPTY_TEXT = pb.AgentThinking(text="after")


def test_text_that_tries_to_leave_its_field_stays_a_string() -> None:
    injected = '1},{"seq":1,"run":"other"'
    data = read(made("custom", pb.Custom(name="n", data_json=injected)))["data"]
    assert data == {"name": "n", "data": injected}


def test_a_frame_has_the_thread_the_epoch_and_dense_numbers() -> None:
    events = [made("agent_thinking", pb.AgentThinking(text=str(n))) for n in range(3)]
    frame = orjson.loads(events_frame("t1", 1_763_800_000_000, 16, "r1", events))
    assert (frame["op"], frame["thread"], frame["epoch"]) == ("events", "t1", 1_763_800_000_000)
    assert [(each["seq"], each["data"]["text"]) for each in frame["events"]] == [
        (16, "0"),
        (17, "1"),
        (18, "2"),
    ]


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (Timestamp(), "1970-01-01T00:00:00.000000Z"),
        (Timestamp(seconds=2**62), "9999-12-31T23:59:59.000000Z"),
        (Timestamp(seconds=-(2**62)), "0001-01-01T00:00:00.000000Z"),
        (Timestamp(seconds=1, nanos=2**31 - 1), "1970-01-01T00:00:01.147483Z"),
    ],
)
def test_any_timestamp_prints_as_rfc_3339(moment: Timestamp, text: str) -> None:
    assert rfc3339(moment) == text


def test_a_run_record_follows_the_same_rules() -> None:
    run = Run(
        run="r1", thread="t1", state=RUN_STATE_RUNNING, created_at=AT, input_json='{"text":"x"}'
    )
    found = orjson.loads(orjson.dumps(message_object(run)))
    assert (found["state"], found["created_at"], found["input"]) == (
        "running",
        AT_TEXT,
        {"text": "x"},
    )
    assert "ended_at" not in found
    assert "error" not in found
    assert found["usage"] == NO_USAGE
    assert message_from_json(found, Run).state == RUN_STATE_RUNNING


def test_repeated_fields_of_a_record_survive_the_way_there_and_back() -> None:
    info = AgentInfo(name="a", missing=["library"], lifetime_s=1.5)
    info.tools.add(name="search", input_schema_json='{"type":"object"}')
    found = orjson.loads(orjson.dumps(message_object(info)))
    assert found["missing"] == ["library"]
    assert found["tools"][0]["input_schema"] == {"type": "object"}
    assert message_from_json(found, AgentInfo) == AgentInfo(
        name="a",
        missing=["library"],
        lifetime_s=1.5,
        input_schema_json="{}",
        tools=info.tools,
    )
