"""The checker of chaos finds every promise that is broken, and nothing where none is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.checker import Break
from tests.chaos.findings import (
    DOUBLE,
    ENDLESS,
    KINDS,
    LEAK,
    LOSS,
    OPEN,
    ORDER,
    REPEAT,
    RESET,
    UNEXPLAINED,
    Findings,
)
from tests.unit.chaos.conversation import BEGAN, EPOCH, Conversation, ended, event, whole_run

KILLED = Break("kill", "agents", BEGAN, BEGAN + 1)
LONG_BEFORE = Break("kill", "agents", BEGAN - 60, BEGAN - 50)


def found(findings: Findings) -> set[str]:
    return {kind for kind in KINDS if findings.broken[kind]}


def test_a_run_that_was_seen_whole_breaks_nothing(tmp_path: Path) -> None:
    findings = Conversation().check(tmp_path)
    assert findings.good, findings.broken
    assert (findings.started, findings.events, findings.read_again, findings.taken) == (1, 8, 8, 4)
    assert findings.endings == {"agent_completed": 1}


def test_nothing_at_all_is_not_good() -> None:
    assert not Findings().good


@pytest.mark.parametrize("missing", range(8))
def test_an_event_that_never_came_is_a_loss(tmp_path: Path, missing: int) -> None:
    conversation = Conversation()
    del conversation.events[missing]
    findings = conversation.check(tmp_path)
    assert found(findings) & {LOSS, ENDLESS}, findings.broken


def test_an_event_that_was_never_logged_is_a_loss_though_seqs_are_dense(tmp_path: Path) -> None:
    for missing in (1, 2, 4, 5):
        events = whole_run()
        del events[missing]
        assert LOSS in found(Conversation(events).check(tmp_path)), missing


def test_what_was_taken_last_and_never_shown_is_a_loss(tmp_path: Path) -> None:
    cut = [*whole_run()[:4], ended("r1", "agent_cancelled", "USER")]
    assert found(Conversation(cut, cancelled=True, taken=1).check(tmp_path)) == set()
    assert found(Conversation(cut, cancelled=True, taken=2).check(tmp_path)) == {LOSS}


def test_what_was_under_way_in_a_killed_replica_is_counted_apart(tmp_path: Path) -> None:
    cut = [*whole_run()[:4], ended("r1", "agent_failed", "AGENT_LOST")]
    findings = Conversation(cut, breaks=[KILLED]).check(tmp_path)
    assert findings.good
    assert findings.tails == 2
    restarted = Break("restart", "agents", BEGAN, BEGAN + 1)
    assert found(Conversation(cut, breaks=[restarted]).check(tmp_path)) == {LOSS}


def test_agents_may_be_lost_by_silence_that_is_long_enough(tmp_path: Path) -> None:
    lost = [*whole_run()[:4], ended("r1", "agent_failed", "AGENT_LOST")]
    long = Break("silence", "engine→agents", BEGAN - 29, BEGAN + 1)
    assert Conversation(lost, breaks=[long]).check(tmp_path).good
    short = Break("silence", "engine→agents", BEGAN - 20, BEGAN + 1)
    assert found(Conversation(lost, breaks=[short]).check(tmp_path)) == {LOSS, UNEXPLAINED}


def test_an_event_that_came_twice_is_a_repeat(tmp_path: Path) -> None:
    conversation = Conversation()
    conversation.events.insert(3, conversation.events[2])
    assert found(conversation.check(tmp_path)) >= {REPEAT}


def test_an_event_that_was_logged_twice_is_a_repeat(tmp_path: Path) -> None:
    events = whole_run()
    events.insert(2, events[1])
    assert REPEAT in found(Conversation(events).check(tmp_path))


def test_a_beginning_that_comes_twice_is_a_repeat(tmp_path: Path) -> None:
    events = whole_run()
    events.insert(1, events[0])
    assert found(Conversation(events).check(tmp_path)) == {REPEAT}


def test_events_in_another_order_are_found(tmp_path: Path) -> None:
    events = whole_run()
    events[1], events[4] = events[4], events[1]
    assert ORDER in found(Conversation(events).check(tmp_path))


def test_what_comes_before_the_beginning_or_after_the_ending_is_out_of_order(
    tmp_path: Path,
) -> None:
    events = whole_run()
    assert ORDER in found(Conversation([events[1], events[0], *events[2:]]).check(tmp_path))
    assert ORDER in found(Conversation([*events[:-2], events[-1], events[-2]]).check(tmp_path))


def test_a_second_ending_is_found(tmp_path: Path) -> None:
    twice = [*whole_run(), ended("r1", "agent_failed", "AGENT_LOST")]
    assert DOUBLE in found(Conversation(twice, breaks=[KILLED]).check(tmp_path))


def test_a_run_without_ending_is_found_also_if_nothing_of_it_was_seen(tmp_path: Path) -> None:
    assert found(Conversation(whole_run()[:-1]).check(tmp_path)) == {ENDLESS}
    assert found(Conversation([], taken=-1).check(tmp_path)) == {ENDLESS}


def test_someone_elses_canary_is_a_leak_wherever_it_stands(tmp_path: Path) -> None:
    conversation = Conversation()
    conversation.events[2]["data"]["arguments"]["more"] = "canary-u2-q1#0 "
    assert LEAK in found(conversation.check(tmp_path))
    reply = {"op": "reply", "id": "1", "error": {"message": "canary-u2-q1"}}
    assert found(Conversation(more=[reply]).check(tmp_path)) == {LEAK}


def test_events_of_a_thread_that_is_not_followed_are_a_leak(tmp_path: Path) -> None:
    strange = {"op": "events", "thread": "t2", "epoch": EPOCH, "events": []}
    assert found(Conversation(more=[strange]).check(tmp_path)) == {LEAK}


def test_an_ending_needs_a_cause(tmp_path: Path) -> None:
    lost = [*whole_run()[:4], ended("r1", "agent_failed", "AGENT_LOST")]
    assert found(Conversation(lost, taken=1, breaks=[KILLED]).check(tmp_path)) == set()
    assert found(Conversation(lost, taken=1, breaks=[LONG_BEFORE]).check(tmp_path)) == {UNEXPLAINED}
    silent = [*whole_run()[:4], ended("r1", "agent_failed", "UNRESPONSIVE")]
    assert found(Conversation(silent, taken=1, breaks=[KILLED]).check(tmp_path)) == {UNEXPLAINED}
    stopped = [*whole_run()[:4], ended("r1", "agent_cancelled", "USER")]
    assert found(Conversation(stopped, taken=1).check(tmp_path)) == {UNEXPLAINED}


def test_a_run_that_never_began_may_be_lost_by_any_break_and_by_none_otherwise(
    tmp_path: Path,
) -> None:
    lost = [ended("r1", "agent_failed", "AGENT_LOST")]
    engine = Break("kill", "engine", BEGAN, BEGAN + 1)
    assert found(Conversation(lost, taken=-1, breaks=[engine]).check(tmp_path)) == set()
    assert found(Conversation(lost, taken=-1).check(tmp_path)) == {UNEXPLAINED}


def test_a_call_that_is_open_at_the_ending_is_found(tmp_path: Path) -> None:
    events = whole_run()
    open_call = [*events[:3], ended("r1", "agent_cancelled", "USER")]
    assert found(Conversation(open_call, cancelled=True, taken=1).check(tmp_path)) == {OPEN}


def test_a_reset_is_found(tmp_path: Path) -> None:
    reset = {"op": "reset", "thread": "t1", "epoch": EPOCH, "reason": "gone"}
    assert RESET in found(Conversation(more=[reset]).check(tmp_path))


def test_who_joins_late_must_see_the_same(tmp_path: Path) -> None:
    conversation = Conversation()
    conversation.late = conversation.events[:-1]
    assert found(conversation.check(tmp_path)) == {LOSS}
    other = dict(conversation.events[1], data={"text": "another text"})
    conversation.late = [conversation.events[0], other, *conversation.events[2:]]
    assert found(conversation.check(tmp_path)) == {LOSS}


def queued() -> dict[str, object]:
    return event("r1", "run_queued", position=1)


def test_a_run_may_wait_before_it_begins_and_not_after(tmp_path: Path) -> None:
    findings = Conversation([queued(), *whole_run()]).check(tmp_path)
    assert findings.good, findings.broken
    assert findings.queued == 1
    began, *rest = whole_run()
    assert found(Conversation([began, queued(), *rest]).check(tmp_path)) == {ORDER}


def test_a_run_that_waits_may_be_cancelled_and_not_end_otherwise(tmp_path: Path) -> None:
    cancelled = [queued(), ended("r1", "agent_cancelled", "USER")]
    assert Conversation(cancelled, cancelled=True, taken=-1).check(tmp_path).good
    assert found(Conversation(cancelled, taken=-1).check(tmp_path)) == {UNEXPLAINED}
    waited = [queued(), ended("r1", "agent_failed", "QUEUE_TIMEOUT")]
    assert found(Conversation(waited, taken=-1).check(tmp_path)) == {UNEXPLAINED}
