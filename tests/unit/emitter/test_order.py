"""The legal order of a run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorychain._core.event_kinds import ENDINGS, ENGINE_LIFECYCLE, KINDS
from factorychain.types.v1.event_pb2 import Event, ToolProgress
from factorychain_emitter.order import OPEN_CALLS_MAX, RunOrder
from factorychain_emitter.rejection import Rejected
from tests.unit.emitter.harness import completed, executing


def take(order: RunOrder, kind: str, event: Event | None = None) -> str:
    """Empty if it was taken, else why not."""
    try:
        order.take(kind, event or Event())
    except Rejected as rejected:
        return rejected.reason
    return ""


def running() -> RunOrder:
    order = RunOrder(lifecycle=False)
    order.take("agent_started", Event())
    return order


@pytest.mark.parametrize("kind", sorted(KINDS - ENDINGS - {"agent_started", "run_queued"}))
def test_nothing_but_an_ending_comes_before_the_beginning(kind: str) -> None:
    assert take(RunOrder(lifecycle=False), kind) == "NOT_STARTED"


@pytest.mark.parametrize("ending", sorted(ENDINGS))
def test_a_run_may_end_before_its_agent_has_begun(ending: str) -> None:
    order = RunOrder(lifecycle=False)
    assert not order.has_begun  # hence no success, whatever the ending is called (`UserEmitter`)
    assert take(order, ending) == ""
    assert order.ended


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_nothing_follows_the_ending(kind: str) -> None:
    order = running()
    order.take("agent_completed", Event())
    assert take(order, kind) == "AFTER_ENDING"


def test_an_attempt_begins_once() -> None:
    assert take(running(), "agent_started") == "ALREADY_STARTED"


def test_only_the_engine_queues_a_run() -> None:
    assert take(RunOrder(lifecycle=False), "run_queued") == "NOT_ALLOWED"


@pytest.mark.parametrize("kind", sorted(KINDS - ENGINE_LIFECYCLE))
def test_a_lifecycle_token_speaks_for_no_agent(kind: str) -> None:
    assert take(RunOrder(lifecycle=True), kind) == "NOT_ALLOWED"


def test_a_lifecycle_token_queues_and_settles() -> None:
    order = RunOrder(lifecycle=True)
    kinds = ["run_queued", "run_queued", "agent_failed", "agent_cancelled"]
    assert [take(order, kind) for kind in kinds] == ["", "", "", "AFTER_ENDING"]


def test_calls_may_overlap_and_are_completed_once() -> None:
    order = running()
    steps = [executing("a"), executing("b"), completed("a"), completed("b"), completed("b")]
    assert [take(order, each.WhichOneof("event") or "", each) for each in steps] == [
        "",
        "",
        "",
        "",
        "CALL_NOT_OPEN",
    ]


def test_the_id_of_a_call_is_used_once() -> None:
    order = running()
    order.take("tool_executing", executing("a"))
    order.take("tool_completed", completed("a"))
    assert take(order, "tool_executing", executing("a")) == "CALL_NOT_UNIQUE"


def test_a_call_is_completed_for_the_tool_that_it_was_begun_for() -> None:
    order = running()
    order.take("tool_executing", executing("a", "search"))
    assert take(order, "tool_completed", completed("a", "read")) == "CALL_MISMATCH"
    assert take(order, "tool_completed", completed("a", "search")) == ""


def test_progress_belongs_to_an_open_call() -> None:
    progress = Event(tool_progress=ToolProgress(call="a", data_json="1"))
    order = running()
    assert take(order, "tool_progress", progress) == "CALL_NOT_OPEN"
    order.take("tool_executing", executing("a"))
    assert take(order, "tool_progress", progress) == ""


def test_open_calls_are_bounded() -> None:
    order = running()
    for n in range(OPEN_CALLS_MAX):
        order.take("tool_executing", executing(f"c{n}"))
    assert take(order, "tool_executing", executing("one more")) == "TOO_MANY_CALLS"


def test_a_run_opened_in_its_middle_knows_its_open_calls() -> None:
    order = RunOrder(lifecycle=False, started=True, open_calls=["a"])
    assert take(order, "agent_thinking") == ""
    assert take(order, "tool_executing", executing("a")) == "CALL_NOT_UNIQUE"
    assert take(order, "tool_completed", completed("a", "whatever")) == ""


@given(st.lists(st.tuples(st.sampled_from(["begin", "end"]), st.sampled_from("abc"))))
def test_open_calls_are_those_begun_and_not_ended(steps: list[tuple[str, str]]) -> None:
    order = running()
    open_, used = set[str](), set[str]()
    for step, call in steps:
        if step == "begin":
            legal = call not in used
            reason = take(order, "tool_executing", executing(call))
            if legal:
                open_.add(call)
                used.add(call)
        else:
            legal = call in open_
            reason = take(order, "tool_completed", completed(call))
            open_.discard(call)
        assert (reason == "") == legal
        assert set(order.open_calls) == open_
