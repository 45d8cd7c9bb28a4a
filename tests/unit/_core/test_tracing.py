"""Spans and trace context: valid ids, the right parent, nothing that leaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context as otel_context
from opentelemetry import trace

from factorychain._core.tracing import (
    current_traceparent,
    extract,
    inject,
    parse_traceparent,
    span,
)
from factorychain.errors import ChainDegraded, RunNotFound
from tests.span_recorder import SpanRecorder

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_span_has_valid_ids_and_keeps_nothing_without_an_exporter() -> None:
    with span("work") as made:
        assert made.get_span_context().is_valid
        assert current_traceparent() == made.traceparent
        assert not made.is_recording()
        made.set("k", "v")
    assert made.attributes == {}
    assert current_traceparent() == ""


def test_a_span_inside_another_is_its_child() -> None:
    with span("outer") as outer, span("inner") as inner:
        assert inner.parent == outer.context
        assert inner.context.trace_id == outer.context.trace_id


def test_an_explicit_parent_wins_over_the_current_span() -> None:
    with span("somebody else's"), span("run", parent=PARENT) as run:
        assert run.traceparent.startswith("00-0af7651916cd43dd8448eb211c80319c-")


@pytest.mark.parametrize("parent", ["", "garbage", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_an_empty_or_unreadable_parent_begins_a_new_trace(parent: str) -> None:
    with span("somebody else's") as current, span("run", parent=parent) as run:
        assert run.parent is None
        assert run.context.trace_id != current.context.trace_id


def test_a_library_that_asks_for_the_current_span_gets_ours() -> None:
    with span("ours") as ours:
        assert trace.get_current_span() is ours


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255))
def test_a_traceparent_is_read_as_it_is_written(trace_id: int, span_id: int, flags: int) -> None:
    found = parse_traceparent(f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}")
    assert found is not None
    assert (found.trace_id, found.span_id, found.trace_flags) == (trace_id, span_id, flags & 1)


@given(st.text(max_size=80))
def test_anything_else_names_no_parent(text: str) -> None:
    assert parse_traceparent(text) is None


@pytest.mark.parametrize(
    ("header", "readable"),
    [
        ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-brings", True),
        ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", False),
        (PARENT + "-more-than-version-00-has", False),
        (PARENT.upper(), False),
        (PARENT + "\n", False),
    ],
)
def test_versions_are_taken_as_the_w3c_says(header: str, readable: bool) -> None:
    assert (parse_traceparent(header) is not None) is readable


def test_a_carrier_brings_the_trace_to_the_other_side() -> None:
    carrier: dict[str, str] = {}
    inject(carrier)
    assert carrier == {}
    with span("sender") as sender:
        inject(carrier)
    with span("receiver", parent=extract(carrier)) as receiver:
        assert receiver.parent is not None
        assert receiver.parent.span_id == sender.context.span_id
    assert extract([("other", "x"), ("traceparent", PARENT.encode())]) == PARENT
    assert extract(None) == ""


async def test_a_span_left_in_another_task_raises_nothing_and_leaks_nothing() -> None:
    async def messages() -> AsyncGenerator[int]:
        with span("abandoned"):
            yield 1
            yield 2

    iterator = messages()

    async def take_one() -> int:
        return await anext(iterator)

    # Begun in one task and closed in another, as an async generator that is left behind.
    assert await asyncio.create_task(take_one()) == 1
    before = otel_context.get_current()
    await iterator.aclose()
    assert otel_context.get_current() is before


async def test_a_task_that_inherits_a_span_and_outlives_it_does_not_disturb_who_began_it() -> None:
    left = asyncio.Event()

    async def child() -> str:
        await left.wait()
        with span("late") as late:
            assert late.parent is not None
        return current_traceparent()

    with span("outer") as outer:
        task = asyncio.create_task(child())
    assert current_traceparent() == ""
    left.set()
    assert await task == outer.traceparent


async def test_spans_of_tasks_at_the_same_time_do_not_see_each_other() -> None:
    barrier = asyncio.Barrier(2)

    async def run() -> tuple[str, str]:
        with span("run", parent="") as own:
            await barrier.wait()
            return own.traceparent, current_traceparent()

    results = await asyncio.gather(run(), run())
    assert all(own == seen for own, seen in results)
    assert results[0][0] != results[1][0]


def test_an_ended_span_says_when_where_and_under_whom(spans: SpanRecorder) -> None:
    with span("outer", attributes={"k": "v"}) as outer, span("inner", links=[PARENT, "bad"]):
        pass
    inner_seen, outer_seen = spans.ended_spans
    assert (inner_seen.name, outer_seen.name) == ("inner", "outer")
    assert inner_seen.parent == outer.context
    assert [f"{each.span_id:x}" for each in inner_seen.links] == ["b7ad6b7169203331"]
    assert outer_seen.attributes == {"k": "v"}
    assert outer_seen.start_ns <= inner_seen.start_ns
    assert outer_seen.start_ns < outer_seen.end_ns


def test_ending_twice_exports_once(spans: SpanRecorder) -> None:
    with span("once") as once:
        once.end()
    assert [each.name for each in spans.ended_spans] == ["once"]


def test_an_unsampled_parent_is_followed_and_not_recorded(spans: SpanRecorder) -> None:
    with span("quiet", parent=PARENT[:-2] + "00") as quiet:
        quiet.set("k", "v")
    assert quiet.traceparent.endswith("-00")
    assert spans.ended_spans == []


@pytest.mark.parametrize(
    ("error", "kind", "fault"),
    [
        (ValueError("canary"), "ValueError", "ValueError"),
        (ChainDegraded("bridge"), "CHAIN_DEGRADED", "CHAIN_DEGRADED"),
        (RunNotFound(), "RUN_NOT_FOUND", None),
        (asyncio.CancelledError(), "cancelled", None),
    ],
)
def test_an_error_is_noted_by_its_kind_and_never_by_its_text(
    spans: SpanRecorder, error: BaseException, kind: str, fault: str | None
) -> None:
    with pytest.raises(type(error)), span("work"):
        raise error
    (seen,) = spans.ended_spans
    assert seen.attributes == {"error.type": kind}
    assert seen.fault == fault


def test_a_library_that_records_an_exception_adds_its_class_alone(spans: SpanRecorder) -> None:
    with span("work") as work:
        work.record_exception(ValueError("canary"))
        work.set_status(trace.StatusCode.ERROR, "canary")
    (seen,) = spans.ended_spans
    assert "canary" not in repr((seen.events, seen.attributes, seen.fault))
    assert seen.fault == "ERROR"
