"""Records as projections of endings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from factorychain.types.v1.event_pb2 import Event
from factorychain.types.v1.run_pb2 import Run, RunState
from factorychain_engine.admission.record import NOTHING_USED, ActiveRun, Totals
from factorychain_engine.lifeline import EndReason
from factorychain_engine.records.endings import (
    begun,
    ended_at_s,
    ending_of,
    has_ended,
    project,
    usage_of,
    used_by,
)

RUNNING = Run(
    run="r1",
    thread="t1",
    state=RunState.RUN_STATE_RUNNING,
    input_json='{"text":"?"}',
    after=4,
    epoch=9,
)
PLACE = ActiveRun("r1", "t1", "a", "00", "e", 0.0, 300.0, base=2, base_seq=4, base_epoch=9)


def test_a_completed_run_has_its_output_and_its_usage() -> None:
    event = Event()
    event.at.seconds = 7
    event.agent_completed.output_json = "[1]"
    event.agent_completed.usage.output_tokens = 3
    event.agent_completed.pending.add(request="q1", prompt="Sure?")
    ended = project(RUNNING, event)
    assert ended.state == RunState.RUN_STATE_COMPLETED
    assert (ended.output_json, ended.ended_at.seconds) == ("[1]", 7)
    assert ended.pending[0].prompt == "Sure?"
    assert ended.input_json == '{"text":"?"}'
    assert used_by(ended, PLACE) == Totals(runs=1, output_tokens=3)
    again = replace(PLACE, base=8, base_seq=7)
    assert used_by(ended, again) == NOTHING_USED, "counted when it left its first place"
    assert not has_ended(RUNNING)


def test_a_failed_run_says_why() -> None:
    event = Event()
    event.agent_failed.reason = "AGENT_ERROR"
    event.agent_failed.message = "No documents"
    event.agent_failed.retry_after_s = 2.5
    ended = project(RUNNING, event)
    assert ended.state == RunState.RUN_STATE_FAILED
    assert (ended.error.reason, ended.error.message) == ("AGENT_ERROR", "No documents")
    assert ended.error.retry_after_s == 2.5
    assert not ended.error.retryable


def test_a_failure_without_a_time_to_retry_has_none() -> None:
    event = Event()
    event.agent_failed.reason = "AGENT_ERROR"
    assert not project(RUNNING, event).error.HasField("retry_after_s")


@pytest.mark.parametrize("reason", list(EndReason))
def test_what_the_engine_says_ends_a_run(reason: EndReason) -> None:
    event = ending_of(reason, 12.5, "00-trace")
    ended = project(RUNNING, event)
    assert has_ended(ended)
    assert ended.error.reason == reason.value
    assert ended.error.message
    assert (event.at.seconds, event.at.nanos, event.trace) == (12, 500_000_000, "00-trace")
    is_cancelled = reason in (EndReason.USER, EndReason.INTERRUPTED)
    assert (ended.state == RunState.RUN_STATE_CANCELLED) is is_cancelled


def test_a_refusal_that_says_nothing_ends_a_run_that_waited_all_the_same() -> None:
    ended = project(RUNNING, ending_of("AGENT_NOT_FOUND", 12.5, "00-trace"))
    assert (ended.error.reason, ended.error.retryable) == ("AGENT_NOT_FOUND", False)
    assert ended.error.message
    told = project(RUNNING, ending_of("AGENT_NOT_FOUND", 12.5, "00-trace", "no agent is called x"))
    assert told.error.message == "no agent is called x"


def test_a_run_ended_when_its_ending_says_or_now() -> None:
    assert ended_at_s(project(RUNNING, ending_of(EndReason.USER, 12.5, "")), 99.0) == 12.5
    assert ended_at_s(RUNNING, 99.0) == 99.0


def test_an_outcome_never_changes() -> None:
    first = project(RUNNING, ending_of(EndReason.USER, 1, ""))
    assert project(first, ending_of(EndReason.DEADLINE, 2, "")) == first


def test_what_is_no_ending_ends_nothing() -> None:
    event = Event()
    event.agent_thinking.text = "hm"
    with pytest.raises(ValueError, match="agent_thinking"):
        project(RUNNING, event)


def test_a_record_is_made_again_from_the_log() -> None:
    event = Event()
    event.agent_started.agent = "researcher"
    event.agent_started.input_json = '{"text":"!"}'
    event.agent_started.metadata_json = "{}"
    event.agent_started.replaces = "r0"
    made = begun(Run(run="r1", attempt=1), event)
    assert (made.agent, made.input_json, made.replaces) == ("researcher", '{"text":"!"}', "r0")
    assert made.attempt == 1


def test_totals_are_sent_as_usage() -> None:
    usage = usage_of(Totals(1, 2, 3, 4, 5, 6))
    assert (usage.input_tokens, usage.output_tokens, usage.requests) == (2, 3, 6)
