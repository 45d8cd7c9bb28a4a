"""What a start may ask for."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from factorychain._core.ids import Principal, run_id_for, thread_id_for
from factorychain.engine.v1.engine_pb2 import (
    ON_BUSY_ENQUEUE,
    ON_BUSY_INTERRUPT,
    ON_BUSY_REJECT,
    StartRunRequest,
)
from factorychain.errors import InvalidField, RunNotFound
from factorychain.types.v1.run_pb2 import ContextItem
from factorychain_engine.validation import (
    InputLimits,
    OnBusy,
    StartRequest,
    parse_start,
    title_of_input,
)

ADA = Principal("acme", "ada")
LIMITS = InputLimits(input_max_bytes=1024, metadata_max_bytes=64)
IMAGE = {"type": "image", "url": "https://example.org/a.png"}


def parsed(**fields: Any) -> StartRequest:
    request = StartRunRequest(**{"input_json": '{"text":"Why?"}', "request_id": "q", **fields})
    return parse_start(ADA, request, LIMITS)


def content(*parts: object) -> str:
    return orjson.dumps({"content": parts}).decode()


def test_the_run_is_named_by_principal_and_request() -> None:
    start = parsed()
    assert start.run == run_id_for(ADA, "q")
    assert start.thread == thread_id_for(start.run)
    assert parsed(request_id="").run != parsed(request_id="").run


def test_on_busy_rejects_unless_told_otherwise() -> None:
    assert parsed().on_busy is OnBusy.REJECT
    assert parsed(on_busy=ON_BUSY_INTERRUPT).on_busy is OnBusy.INTERRUPT
    assert parsed(on_busy=ON_BUSY_ENQUEUE).on_busy is OnBusy.ENQUEUE
    with pytest.raises(InvalidField, match="on_busy"):
        parsed(on_busy=17)


@pytest.mark.parametrize(
    "good",
    [
        '{"text":""}',
        '{"text":"Why?","data":[1]}',
        '{"text":"Why?","later":"versions may say more"}',
        content({"type": "text", "text": "Look"}, IMAGE),
        content({"type": "file", "data": "aGk=", "media_type": "text/plain"}),
    ],
)
def test_inputs_that_are_accepted(good: str) -> None:
    assert parsed(input_json=good).input_json == good


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ("", "input"),
        ("nonsense", "input"),
        ("[]", "input"),
        ("{}", "input"),
        ('{"text":1}', "input.text"),
        ('{"text":"a","content":[]}', "input"),
        ('{"text":"\\ud800"}', "input"),
        ('{"text":NaN}', "input"),
        ('{"text":"' + "x" * 1024 + '"}', "input"),
        ("[" * 5000, "input"),
        (content(), "input.content"),
        (content(*[IMAGE] * 65), "input"),
        (content("text"), "input.content[0]"),
        (content({"type": "video"}), "input.content[0].type"),
        (content({"type": "text"}), "input.content[0].text"),
        (content({"type": "text", "text": 1}), "input.content[0].text"),
        (content({"type": "image"}), "input.content[0]"),
        (content({**IMAGE, "data": "aGk="}), "input.content[0]"),
        (content({"type": "file", "data": "aGk="}), "input.content[0].media_type"),
        (content({"type": "image", "url": "file:///etc/passwd"}), "input.content[0].url"),
    ],
)
def test_inputs_that_are_refused(bad: str, field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        parsed(input_json=bad)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"thread": "a b"}, "thread"),
        ({"thread": "x" * 129}, "thread"),
        ({"agent": "x" * 129}, "agent"),
        ({"agent": "a\nb"}, "agent"),
        ({"request_id": "x" * 129}, "request_id"),
        ({"request_id": "a\x00"}, "request_id"),
        ({"metadata_json": "[]"}, "metadata"),
        ({"metadata_json": '{"a":"' + "x" * 64 + '"}'}, "metadata"),
        ({"context": [ContextItem(description="d")] * 65}, "context"),
        ({"context": [ContextItem(value="x" * 1025)]}, "context"),
    ],
)
def test_other_fields_that_are_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        parsed(**fields)
    assert refused.value.field == field


def test_a_start_that_replaces_what_is_no_run_id_finds_no_run() -> None:
    with pytest.raises(RunNotFound):
        parsed(replaces="*")


def test_the_hash_is_of_what_the_body_means() -> None:
    base = parsed(metadata_json='{"a":1,"b":2}', on_busy=ON_BUSY_REJECT)
    same = parsed(input_json='{ "text": "Why?" }', metadata_json='{"b":2,"a":1}')
    assert same.request_hash == base.request_hash
    assert len(base.request_hash) == 32


@pytest.mark.parametrize(
    "fields",
    [
        {"agent": "other"},
        {"thread": "t2"},
        {"input_json": '{"text":"Why not?"}'},
        {"metadata_json": "{}"},
        {"on_busy": ON_BUSY_INTERRUPT},
        {"replaces": "r" + "a" * 24},
        {"context": [ContextItem(description="d", value="v")]},
    ],
)
def test_every_part_of_the_body_counts(fields: dict[str, Any]) -> None:
    assert parsed(**fields).request_hash != parsed().request_hash


def test_a_thread_that_is_named_as_it_would_be_is_the_same_request() -> None:
    assert parsed(thread=parsed().thread).request_hash == parsed().request_hash


@pytest.mark.parametrize(
    ("input_json", "title"),
    [
        ('{"text":"Why?"}', "Why?"),
        ('{"text":"\\n  Why\\t is \\n that?"}', "Why is"),
        ('{"text":""}', ""),
        ("", ""),
        (content(IMAGE, {"type": "text", "text": "Look"}), "Look"),
        (content(IMAGE), ""),
        ('{"text":"' + "x" * 90 + '"}', "x" * 79 + "…"),
    ],
)
def test_a_thread_is_called_as_its_first_line(input_json: str, title: str) -> None:
    assert title_of_input(input_json) == title
