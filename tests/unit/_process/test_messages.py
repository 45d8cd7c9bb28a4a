"""The data in frames, from friends and others."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorychain._instance.spec import InputRequest, Outcome, OutcomeKind, RunSpec, SpanRecord
from factorychain._process.messages import (
    number,
    numbered,
    pack_outcome,
    pack_span,
    pack_spec,
    unpack_outcome,
    unpack_span,
    unpack_spec,
)
from factorychain._process.wire import BrokenFrame
from factorychain.usage import Usage

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SPEC = RunSpec(
    tenant="acme",
    user="ada",
    thread="t",
    run="r",
    agent="five",
    attempt=2,
    input_json='{"text": "ä"}',
    context=(("page", "home"),),
    deadline_s=12.5,
    trace=TRACE,
)
ASKED = InputRequest("q1", "approval", "sure?", '{"type":"boolean"}', "send", '{"to":"x"}', "c1")
SPAN = SpanRecord("execute_tool x", TRACE, "b7ad6b7169203331", 5, 9, (("k", "v"), ("n", 1)), "NO")


def test_a_spec_arrives_as_it_was() -> None:
    assert unpack_spec(pack_spec(SPEC)) == SPEC


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(OutcomeKind.COMPLETED, '{"a": "ö"}', "m1", usage=Usage(requests=3)),
        Outcome(OutcomeKind.FAILED, reason="LOOKUP_DOWN", text="down", retryable=True),
        Outcome(OutcomeKind.FAILED, reason="BUSY", text="later", retry_after_s=1.5),
        Outcome(OutcomeKind.CANCELLED, usage=Usage(input_tokens=1)),
        Outcome(OutcomeKind.COMPLETED, "null", pending=(ASKED, replace(ASKED, request="q2"))),
    ],
)
def test_an_outcome_arrives_as_it_was(outcome: Outcome) -> None:
    assert unpack_outcome(pack_outcome(outcome), 1000) == outcome


@pytest.mark.parametrize(
    "pending",
    [
        "q1",
        [3],
        [{"request": "q1"}],
        [asdict(ASKED) | {"kind": "order"}],
        [asdict(ASKED) | {"request": "with space"}],
        [asdict(ASKED) | {"schema_json": "[1]"}],
        [asdict(ASKED) | {"more": ""}],
        [asdict(ASKED), asdict(ASKED)],
        [asdict(ASKED) | {"request": f"q{number}"} for number in range(33)],
        [asdict(ASKED) | {"prompt": "x" * 70_000}],
    ],
)
def test_requests_that_an_agent_never_makes_break_the_frame(pending: Any) -> None:
    header = orjson.dumps(asdict(Outcome(OutcomeKind.COMPLETED)) | {"pending": pending})
    with pytest.raises(BrokenFrame):
        unpack_outcome(number(len(header)) + header + b"null", 1000)


def test_text_that_is_no_utf8_does_not_keep_an_outcome_back() -> None:
    outcome = Outcome(OutcomeKind.FAILED, reason="OH", text="half \ud800")
    assert unpack_outcome(pack_outcome(outcome), 10).text == "half ?"


def forged(output: bytes = b"null", **changes: Any) -> bytes:
    header = orjson.dumps(asdict(Outcome(OutcomeKind.COMPLETED)) | changes)
    return number(len(header)) + header + output


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0\0\0\xff{}",
        forged(kind="great"),
        forged(kind=3),
        forged(output=b"not json"),
        forged(output=b'"' + b"x" * 1000 + b'"'),
        forged(output=b'"\xff"'),
        forged(message="m" * 1000),
        forged(reason=["A"]),
        forged(usage=None),
        forged(usage={}),
        forged(usage=asdict(Usage()) | {"requests": -1}),
        forged(usage=asdict(Usage()) | {"requests": True}),
        forged(usage=asdict(Usage()) | {"requests": 2**60}),
        forged(retry_after_s="soon"),
        forged(retry_after_s=-1),
    ],
)
def test_what_is_no_outcome_is_refused(payload: bytes) -> None:
    with pytest.raises(BrokenFrame):
        unpack_outcome(payload, 500)


@given(st.binary(max_size=200))
def test_nothing_that_a_process_writes_breaks_who_reads_it(payload: bytes) -> None:
    for read in (
        lambda: unpack_outcome(payload, 100),
        lambda: unpack_span(payload, TRACE),
        lambda: numbered(payload),
    ):
        try:
            read()
        except BrokenFrame:
            continue


def test_a_failure_has_a_reason_that_every_layer_takes_and_a_cancel_none() -> None:
    failed = unpack_outcome(forged(kind="failed", reason="no good"), 10)
    assert failed.reason == "AGENT_FAILED"
    cancelled = unpack_outcome(forged(kind="cancelled", reason="DEADLINE", text="not so"), 10)
    assert (cancelled.reason, cancelled.text) == ("", "")


def test_a_span_arrives_as_it_was() -> None:
    assert unpack_span(pack_span(SPAN), TRACE) == SPAN


@pytest.mark.parametrize(
    "changes",
    [
        {"trace": TRACE.replace("0af7", "ffff")},
        {"trace": "nothing"},
        {"trace": 1},
        {"name": "n" * 1000},
        {"parent_id": "p" * 100},
        {"attributes": {}},
        {"attributes": [["k"]]},
        {"attributes": [["k", {}]]},
        {"attributes": [["k", "v"]] * 100},
        {"error": None},
        {"more": 1},
    ],
)
def test_what_is_no_span_of_the_run_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BrokenFrame):
        unpack_span(orjson.dumps(asdict(SPAN) | changes), TRACE)


def test_long_attributes_are_cut() -> None:
    long = replace(SPAN, attributes=(("k", "v" * 1000),))
    assert unpack_span(pack_span(long), TRACE).attributes == (("k", "v" * 256),)
