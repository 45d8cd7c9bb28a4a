"""What a graph asks, as requests, and the answers on their way back."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.types import Interrupt as GraphInterrupt
from langgraph.types import StateSnapshot

from factorychain._core.answer_schema import check_schema, problem_of
from factorychain.adapters.langgraph.requests import interrupt_for, resume_values
from factorychain.errors import AgentError
from factorychain.interrupt import REQUESTS_MAX

ACTIONS = {
    "action_requests": [
        {"name": "send", "args": {"to": "Ada"}, "description": "Send the letter"},
        {"name": "drop", "args": {"table": "x"}},
    ],
    "review_configs": [],
}


def snapshot(*waiting: GraphInterrupt[Any]) -> StateSnapshot:
    return StateSnapshot({}, ("n",), {}, None, None, None, (), tuple(waiting))


def waiting(value: object, id: str = "i1", **more: Any) -> GraphInterrupt[Any]:
    return GraphInterrupt(value, id=id, **more)


@pytest.mark.parametrize(
    ("value", "prompt"),
    [
        ("Which city?", "Which city?"),
        ({"question": "Which?", "of": [1]}, "Which?"),
        ({"message": "Sure?"}, "Sure?"),
        ({"of": [1]}, '{"of":[1]}'),
        ([1, 2], "[1,2]"),
        (None, "null"),
    ],
)
def test_what_the_user_reads(value: object, prompt: str) -> None:
    (request,) = interrupt_for([waiting(value)]).requests
    assert (request.kind, request.prompt, request.request) == ("question", prompt, "i1")
    assert request.schema is None


def test_a_schema_of_the_answer_goes_along() -> None:
    schema = {"type": "integer"}
    (request,) = interrupt_for([waiting("How many?", response_schema=schema)]).requests
    assert request.schema == schema


def test_a_schema_that_cannot_be_checked_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    schema: dict[str, Any] = {"patternProperties": {"a": {}}}
    (request,) = interrupt_for([waiting("How many?", response_schema=schema)]).requests
    assert request.schema is None
    assert "left out" in caplog.text


def test_a_decision_can_be_checked() -> None:
    (request, _) = interrupt_for([waiting(ACTIONS)]).requests
    schema = request.plain().schema_json
    check_schema(schema)
    assert not problem_of(schema, "true")
    assert not problem_of(schema, '{"type": "edit", "edited_action": {}}')
    assert problem_of(schema, '"perhaps"')


def test_each_action_is_an_approval_and_the_decisions_keep_their_order() -> None:
    asked = [waiting(ACTIONS), waiting("Which?", id="i2")]
    requests = interrupt_for(asked).requests
    assert [(each.kind, each.request, each.tool) for each in requests] == [
        ("approval", "i1.0", "send"),
        ("approval", "i1.1", "drop"),
        ("question", "i2", ""),
    ]
    assert requests[0].prompt == "Send the letter"
    assert requests[0].arguments == {"to": "Ada"}
    edit = {"type": "edit", "edited_action": {"name": "drop", "args": {}}}
    answers: dict[str, Any] = {"i1.1": edit, "i1.0": True, "i2": "Turin"}
    assert resume_values(snapshot(*asked), answers) == {
        "i1": {"decisions": [{"type": "approve"}, edit]},
        "i2": "Turin",
    }
    assert resume_values(snapshot(*asked), {"i1.0": False, "i1.1": None}) == {
        "i1": {"decisions": [{"type": "reject"}, {"type": "reject"}]}
    }


def test_more_questions_than_a_run_may_ask_are_asked_in_turns() -> None:
    asked = [waiting("?", id=f"i{at}") for at in range(REQUESTS_MAX + 3)]
    requests = interrupt_for(asked).requests
    assert len(requests) == REQUESTS_MAX
    answers: dict[str, Any] = {each.request: 1 for each in requests}
    assert len(resume_values(snapshot(*asked), answers)) == REQUESTS_MAX


def test_answers_that_nobody_waits_for_any_more_are_an_ending() -> None:
    with pytest.raises(AgentError, match="is over") as raised:
        resume_values(snapshot(waiting("?", id="other")), {"i1": "yes"})
    assert raised.value.reason == "NOTHING_TO_RESUME"
