"""A run that begins again is one whole story from its last beginning on; only some may, and only with a cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.checker import Break
from tests.chaos.findings import LOSS, REPEAT, UNEXPLAINED
from tests.unit.chaos.conversation import BEGAN, Conversation, Event, ended, event, whole_run
from tests.unit.chaos.test_checker import KILLED, found

RESTARTED = Break("restart", "agents-1", BEGAN, BEGAN + 1)


def begun(attempt: int, events: list[Event]) -> list[Event]:
    first = event("r1", "agent_started", agent="repeating", attempt=attempt)
    return [first, *events[1:]]


def twice(of_first: int = 3, second: int = 2) -> list[Event]:
    """Lost after some events, whole in the next attempt."""
    return [*begun(1, whole_run()[:of_first]), *begun(second, whole_run())]


@pytest.mark.parametrize("of_first", [1, 2, 3, 5])
@pytest.mark.parametrize("cause", [KILLED, RESTARTED])
def test_a_run_may_begin_again_where_it_was_lost(
    tmp_path: Path, of_first: int, cause: Break
) -> None:
    conversation = Conversation(twice(of_first), agent="repeating", attempt=2, breaks=[cause])
    findings = conversation.check(tmp_path)
    assert findings.good, findings.broken
    assert findings.repeated == 1


def test_only_who_may_be_repeated_begins_again_and_only_as_the_next_attempt(tmp_path: Path) -> None:
    other = Conversation(twice(), agent="scripted", breaks=[KILLED])
    assert found(other.check(tmp_path)) == {REPEAT}
    same = Conversation(twice(second=1), agent="repeating", breaks=[KILLED])
    assert found(same.check(tmp_path)) == {REPEAT}


def test_beginning_again_needs_a_cause(tmp_path: Path) -> None:
    nothing = Conversation(twice(), agent="repeating", attempt=2)
    assert found(nothing.check(tmp_path)) == {UNEXPLAINED}
    elsewhere = Break("kill", "emitter", BEGAN, BEGAN + 1)
    unharmed = Conversation(twice(), agent="repeating", attempt=2, breaks=[elsewhere])
    assert found(unharmed.check(tmp_path)) == {UNEXPLAINED}


@pytest.mark.parametrize("missing", [2, 5])
def test_a_hole_is_found_in_each_attempt(tmp_path: Path, missing: int) -> None:
    events = twice(5)
    del events[missing - 1 if missing == 2 else missing + 1]
    findings = Conversation(events, agent="repeating", attempt=2, breaks=[KILLED]).check(tmp_path)
    assert LOSS in found(findings)


def test_what_goes_on_of_an_earlier_attempt_is_found(tmp_path: Path) -> None:
    events = twice()
    events.insert(5, whole_run()[4])
    findings = Conversation(events, agent="repeating", attempt=2, breaks=[KILLED]).check(tmp_path)
    assert found(findings) & {LOSS, REPEAT}


def test_it_is_lost_for_good_only_when_it_was_lost_often_enough(tmp_path: Path) -> None:
    lost = [*begun(1, whole_run()[:3]), ended("r1", "agent_failed", "AGENT_LOST")]
    once = Conversation(lost, agent="repeating", taken=-1, breaks=[KILLED])
    assert found(once.check(tmp_path)) == {UNEXPLAINED}
    thrice = Conversation(lost, agent="repeating", taken=-1, breaks=[KILLED] * 3)
    assert found(thrice.check(tmp_path)) == set()


def test_what_the_last_attempt_had_taken_must_be_there(tmp_path: Path) -> None:
    stopped = [*begun(1, whole_run()), ended("r1", "agent_cancelled", "USER")]
    del stopped[-2]
    kept = Conversation(stopped, agent="repeating", cancelled=True, breaks=[RESTARTED])
    assert found(kept.check(tmp_path)) == set()
    kept.attempt, kept.taken = 2, 0
    assert found(kept.check(tmp_path)) == {LOSS}
