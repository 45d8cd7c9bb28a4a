"""Reading frames: every op, every way to get one wrong."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorychain.engine.v1 import engine_pb2 as pb
from factorychain_bridge.edge.frames import (
    Auth,
    BadFrame,
    Call,
    Ping,
    Respond,
    Start,
    Subscribe,
    Unsubscribe,
    parse,
)


def read(**frame: Any) -> Any:
    return parse(orjson.dumps(frame))


def problem(**frame: Any) -> tuple[str | None, str]:
    with pytest.raises(BadFrame) as bad:
        read(**frame)
    return bad.value.id, bad.value.error.field


def test_auth_needs_no_id_and_hides_its_token() -> None:
    found = read(op="auth", token="secret")
    assert found == Auth(None, "secret")
    assert "secret" not in repr(found)


def test_a_minimal_start() -> None:
    found = read(op="start", id="1", input={"text": "x"})
    assert isinstance(found, Start)
    assert found.request == pb.StartRunRequest(input_json='{"text":"x"}')


def test_a_full_start() -> None:
    found = read(
        op="start",
        id="1",
        agent="a",
        thread="t:1",
        input={"content": [{"type": "text", "text": "x"}], "data": None},
        request_id="q",
        on_busy="enqueue",
        context=[{"description": "d", "value": "v"}],
        metadata={"k": [1]},
        replaces="r",
    )
    assert found.request == pb.StartRunRequest(
        agent="a",
        thread="t:1",
        input_json='{"content":[{"type":"text","text":"x"}],"data":null}',
        request_id="q",
        on_busy=pb.ON_BUSY_ENQUEUE,
        context=[{"description": "d", "value": "v"}],  # type: ignore[list-item]  # protobuf takes it
        metadata_json='{"k":[1]}',
        replaces="r",
    )


@pytest.mark.parametrize(
    ("frame", "operation"),
    [
        ({"op": "subscribe", "thread": "t"}, Subscribe("1", "t", 0, 0)),
        ({"op": "subscribe", "thread": "t", "after": 3, "epoch": 9}, Subscribe("1", "t", 3, 9)),
        ({"op": "subscribe", "thread": "t", "epoch": None}, Subscribe("1", "t", 0, 0)),
        ({"op": "unsubscribe", "thread": "t"}, Unsubscribe("1", "t")),
        ({"op": "ping", "more": 1}, Ping("1")),
        ({"op": "cancel", "run": "r"}, Call("1", "CancelRun", pb.CancelRunRequest(run="r"))),
        ({"op": "agents"}, Call("1", "ListAgents", pb.ListAgentsRequest())),
        ({"op": "usage"}, Call("1", "GetUsage", pb.GetUsageRequest())),
        (
            {"op": "threads", "page_token": "p", "page_size": 7},
            Call("1", "ListThreads", pb.ListThreadsRequest(page_token="p", page_size=7)),
        ),
        ({"op": "thread", "thread": "t"}, Call("1", "GetThread", pb.GetThreadRequest(thread="t"))),
        (
            {"op": "respond", "run": "r", "request": "q", "value": {"a": [None]}},
            Respond("1", pb.RespondToRunRequest(run="r", request="q", value_json='{"a":[null]}')),
        ),
        (
            {"op": "thread_update", "thread": "t", "title": ""},
            Call("1", "UpdateThread", pb.UpdateThreadRequest(thread="t", title="")),
        ),
        (
            {"op": "thread_update", "thread": "t", "metadata": {}},
            Call("1", "UpdateThread", pb.UpdateThreadRequest(thread="t", metadata_json="{}")),
        ),
        (
            {"op": "thread_delete", "thread": "t"},
            Call("1", "DeleteThread", pb.DeleteThreadRequest(thread="t")),
        ),
        (
            {"op": "feedback", "run": "r", "score": -0.5, "comment": "c"},
            Call(
                "1",
                "RecordFeedback",
                pb.RecordFeedbackRequest(run="r", score=-0.5, comment="c"),
            ),
        ),
    ],
)
def test_every_operation_is_read(frame: dict[str, Any], operation: object) -> None:
    assert read(id="1", **frame) == operation


@pytest.mark.parametrize(
    ("frame", "field"),
    [
        ({"op": "start"}, "input"),
        ({"op": "start", "input": "text"}, "input"),
        ({"op": "start", "input": {}, "agent": 5}, "agent"),
        ({"op": "start", "input": {}, "thread": "a b"}, "thread"),
        ({"op": "start", "input": {}, "thread": "x" * 129}, "thread"),
        ({"op": "start", "input": {}, "on_busy": "panic"}, "on_busy"),
        ({"op": "start", "input": {}, "context": {}}, "context"),
        ({"op": "start", "input": {}, "context": ["x"]}, "context[0]"),
        ({"op": "start", "input": {}, "context": [{"value": 1}]}, "context[0].value"),
        ({"op": "start", "input": {}, "metadata": []}, "metadata"),
        ({"op": "subscribe"}, "thread"),
        ({"op": "subscribe", "thread": "t", "after": -1}, "after"),
        ({"op": "subscribe", "thread": "t", "after": True}, "after"),
        ({"op": "subscribe", "thread": "t", "after": 1.5}, "after"),
        ({"op": "subscribe", "thread": "t", "epoch": 2**63}, "epoch"),
        ({"op": "cancel"}, "run"),
        ({"op": "cancel", "run": ""}, "run"),
        ({"op": "threads", "page_size": 1001}, "page_size"),
        ({"op": "feedback", "run": "r", "score": 2}, "score"),
        ({"op": "levitate"}, "op"),
        ({"op": ["auth"]}, "op"),
        ({}, "op"),
    ],
)
def test_a_bad_field_is_named_and_answered_by_id(frame: dict[str, Any], field: str) -> None:
    assert problem(id="1", **frame) == ("1", field)


@pytest.mark.parametrize("id", [5, ["1"], {}, True, "x" * 129])
def test_an_id_that_cannot_be_read_is_said(id: object) -> None:
    assert problem(op="ping", id=id) == (None, "id")


def test_operations_need_an_id() -> None:
    assert problem(op="ping") == (None, "id")


def test_nesting_that_cannot_be_passed_on_is_a_bad_field() -> None:
    deep = "[" * 500 + "]" * 500
    with pytest.raises(BadFrame) as bad:
        parse('{"op":"start","id":"1","input":{"data":%s}}' % deep)  # noqa: UP031 - braces
    assert bad.value.error.field == "input"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "5", '"auth"', "NaN", '{"op":NaN}', b"\xff"]
)
def test_what_is_no_object_is_a_bad_frame(text: str | bytes) -> None:
    with pytest.raises(BadFrame) as bad:
        parse(text)
    assert bad.value.id is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        "op",
        "id",
        "token",
        "thread",
        "after",
        "epoch",
        "run",
        "input",
        "agent",
        "on_busy",
        "context",
        "metadata",
        "request",
        "value",
        "score",
        "page_size",
        "page_token",
        "title",
        "comment",
        "replaces",
        "request_id",
    ]
)
OPS = st.sampled_from(
    [
        "auth",
        "start",
        "subscribe",
        "unsubscribe",
        "cancel",
        "respond",
        "agents",
        "usage",
        "threads",
        "thread",
        "thread_update",
        "thread_delete",
        "feedback",
        "ping",
    ]
)


@given(op=OPS, fields=st.dictionaries(FIELDS, JSON, max_size=6))
def test_whatever_fields_an_operation_has_it_is_read_or_refused(
    op: str, fields: dict[str, Any]
) -> None:
    try:
        text = orjson.dumps({"id": "1", **fields, "op": op})
    except orjson.JSONEncodeError:
        return  # an integer that JSON writers refuse
    try:
        parse(text)
    except BadFrame as bad:
        assert bad.error.field


@given(st.text())
def test_whatever_text_comes_it_is_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except BadFrame as bad:
        assert bad.error.field
