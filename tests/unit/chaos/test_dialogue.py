"""A question is asked once, its answer heard once and unchanged, and one run at most goes on with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.chaos.findings import ANSWER, DOUBLE, ENDLESS, OPEN, REPEAT
from tests.unit.chaos.conversation import Conversation, Event, ended, event
from tests.unit.chaos.test_checker import KILLED, found

SAID = "canary-u1-q1"
VALUE = "canary-u1-r1-q"


def note(what: str, **fields: object) -> dict[str, Any]:
    return {"what": what, "run": "r1", "question": "q", "value": VALUE, **fields}


def asks(heard: str = VALUE, output: str = VALUE) -> Conversation:
    """A run that asks once, and is answered."""
    events = [
        event("r1", "agent_started", agent="asking", attempt=1),
        event("r1", "agent_thinking", text=f"{SAID}#0 "),
        event("r1", "input_requested", request="q", prompt=f"{SAID}#1 "),
        event("r1", "input_received", request="q", value=heard),
        event("r1", "agent_completed", output={"said": 2, "answers": [output]}),
    ]
    notes = [note("answering"), note("answered", next="r1")]
    return Conversation(events, agent="asking", taken=1, notes=notes)


def interrupts() -> Conversation:
    """A run that ends with a question, and the one that goes on."""
    output = {"said": 1, "answers": [VALUE]}
    events = [
        event("r1", "agent_started", agent="interrupting", attempt=1),
        event("r1", "agent_completed", output={"said": 0}, pending=[{"request": "q"}]),
        *goes_on("r2", output),
    ]
    notes = [
        note("answering"),
        note("answered", next="r2"),
        {"what": "asked", "request": "q1-next", "thread": "t1", "agent": "interrupting"},
        {"what": "admitted", "request": "q1-next", "run": "r2", "thread": "t1"},
    ]
    return Conversation(events, agent="interrupting", taken=-1, notes=notes)


def goes_on(run: str, output: dict[str, object]) -> list[Event]:
    return [
        event(run, "agent_started", agent="interrupting", attempt=1, resumes="r1"),
        event(run, "agent_thinking", text=f"{SAID}-next#0 "),
        event(run, "agent_completed", output=output),
    ]


def renumbered(conversation: Conversation) -> Conversation:
    conversation.events = [
        {**each, "seq": seq} for seq, each in enumerate(conversation.events, start=1)
    ]
    return conversation


def test_an_answer_that_was_heard_breaks_nothing(tmp_path: Path) -> None:
    for whole in (asks(), interrupts()):
        findings = whole.check(tmp_path)
        assert findings.good, findings.broken
        assert findings.answers == 1


def test_an_answer_that_came_out_as_another_is_found(tmp_path: Path) -> None:
    assert found(asks(heard="other").check(tmp_path)) == {ANSWER}
    assert found(asks(output="other").check(tmp_path)) == {ANSWER}
    changed = interrupts()
    changed.events[-1]["data"]["output"]["answers"] = ["other"]
    assert found(changed.check(tmp_path)) == {ANSWER}


def test_an_answer_that_was_taken_and_never_shown_is_found(tmp_path: Path) -> None:
    silent = asks()
    silent.events[3:] = [{**ended("r1", "agent_cancelled", "USER"), "seq": 4}]
    silent.cancelled = True
    assert found(silent.check(tmp_path)) == {ANSWER, OPEN}
    lost = asks()
    lost.events[3:] = [{**ended("r1", "agent_failed", "AGENT_LOST"), "seq": 4}]
    lost.breaks = [KILLED]
    assert found(lost.check(tmp_path)) == set()


def test_a_question_that_comes_twice_is_a_repeat(tmp_path: Path) -> None:
    for index in (2, 3):
        twice = asks()
        twice.events.insert(index, twice.events[index])
        assert REPEAT in found(renumbered(twice).check(tmp_path))


def test_two_runs_that_go_on_with_one_answer_are_found(tmp_path: Path) -> None:
    seen = interrupts()
    seen.events += goes_on("r3", {"said": 1, "answers": [VALUE]})
    assert DOUBLE in found(renumbered(seen).check(tmp_path))
    told = interrupts()
    told.notes.append(note("answered", next="r3"))
    assert DOUBLE in found(told.check(tmp_path))


def test_a_run_that_never_goes_on_is_found(tmp_path: Path) -> None:
    ends = interrupts()
    del ends.events[2:]
    assert found(ends.check(tmp_path)) == {ENDLESS}


def test_a_refusal_that_must_not_be_is_found(tmp_path: Path) -> None:
    for reason, broken in (("REQUEST_ANSWERED", {ANSWER}), ("CHAIN_DEGRADED", set())):
        refused = asks()
        refused.notes.append(note("unanswered", error={"reason": reason}))
        assert found(refused.check(tmp_path)) == broken
