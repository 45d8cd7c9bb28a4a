"""What a graph asks a human with `interrupt()`, and the way back of the answers.

| `interrupt(value)` | request |
|---|---|
| a text | a question |
| an object with a text under `question`, `prompt`, `message` or `description` | a question |
| `action_requests` (LangChain's `HumanInTheLoopMiddleware`) | an approval for each: yes, no, or a decision |
| anything else | a question with the value as JSON |
| none: the graph stops before or after a node that it was compiled to stop at | an approval to go on |

Invariant: an answer reaches the interrupt that it was given to, in whatever process the graph goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from langgraph.types import Interrupt as GraphInterrupt
from langgraph.types import StateSnapshot

from factorychain._instance.values import NotJson, dumps, dumps_anything
from factorychain.errors import AgentError
from factorychain.input import Json
from factorychain.interrupt import REQUESTS_MAX, Interrupt, Request

log = logging.getLogger(__name__)

Waiting: TypeAlias = GraphInterrupt[object]

_TEXTS: Final = ("question", "prompt", "message", "description", "text")
_ACTIONS: Final = "action_requests"
_DECISIONS: Final = "decisions"
_DECISION: Final[Mapping[str, Json]] = {
    "anyOf": [
        {"type": "boolean"},
        {
            "type": "object",
            "properties": {"type": {"enum": ["approve", "edit", "reject", "respond"]}},
            "required": ["type"],
        },
    ]
}
"""A decision about one action: yes or no, or as LangChain takes it."""
_TOOL_MAX_CHARS: Final = 128
_GO_ON: Final = "go-on"


def interrupt_for(waiting: Sequence[Waiting]) -> Interrupt:
    """What ends the run, with a request for each answer that the graph needs.

    Of more than a run may have, the first: the graph asks for the others again when these are there.
    """
    requests = [request for each in waiting for request in _requests(each)]
    return Interrupt(requests[:REQUESTS_MAX])


def breakpoint_for(snapshot: StateSnapshot) -> Interrupt | None:
    """What ends the run of a graph that stops at a breakpoint."""
    if not snapshot.next:
        return None
    prompt = f"Go on with {', '.join(snapshot.next)}?"
    return Interrupt(Request(kind="approval", prompt=prompt, request=_GO_ON))


def is_asked(snapshot: StateSnapshot, answers: Mapping[str, Json]) -> bool:
    """Whether the graph waits for one of these answers."""
    if _GO_ON in answers and snapshot.next:
        return True
    return any(_requested(each, answers) for each in snapshot.interrupts)


def resume_values(snapshot: StateSnapshot, answers: Mapping[str, Json]) -> dict[str, object]:
    """What the graph goes on with, by the interrupt's id; nothing for one that is let go on.

    Raises:
        AgentError: NOTHING_TO_RESUME, the graph does not wait for these answers any more; NOT_APPROVED.
    """
    if _GO_ON in answers and snapshot.next:
        if answers[_GO_ON] is not True:
            raise AgentError("It was not approved", reason="NOT_APPROVED")
        return {}
    waiting = snapshot.interrupts
    found = {each.id: _answer(each, answers) for each in waiting if _requested(each, answers)}
    if not found:
        raise AgentError(
            "What was asked is over; say it again as a new message", reason="NOTHING_TO_RESUME"
        )
    return found


def _requests(waiting: Waiting) -> list[Request]:
    actions = _actions(waiting.value)
    if actions is not None:
        return [_approval(waiting, at, each) for at, each in enumerate(actions)]
    schema = _checked(waiting.response_schema)
    return [Request(prompt=_prompt(waiting.value), schema=schema, request=waiting.id)]


def _checked(schema: object) -> dict[str, Json] | None:
    """The schema of an answer, if answers can be checked against it; else they may be anything."""
    if not isinstance(schema, dict):
        return None
    # Few graphs have one, and what checks them takes a while to load.
    from factorychain._core.answer_schema import BadSchema, check_schema

    try:
        check_schema(dumps(schema))
    except (BadSchema, NotJson) as error:
        log.warning("the schema of an interrupt's answer is left out: %s", error)
        return None
    return schema


def _approval(waiting: Waiting, at: int, action: Mapping[str, object]) -> Request:
    arguments = action.get("args")
    return Request(
        kind="approval",
        prompt=str(action.get("description") or ""),
        schema=_DECISION,
        request=f"{waiting.id}.{at}",
        tool=str(action.get("name") or "tool")[:_TOOL_MAX_CHARS],
        arguments=dict(arguments) if isinstance(arguments, Mapping) else {},
    )


def _requested(waiting: Waiting, answers: Mapping[str, Json]) -> bool:
    return any(each.request in answers for each in _requests(waiting))


def _answer(waiting: Waiting, answers: Mapping[str, Json]) -> object:
    actions = _actions(waiting.value)
    if actions is None:
        return answers[waiting.id]
    given = [answers.get(f"{waiting.id}.{at}") for at in range(len(actions))]
    return {_DECISIONS: [_decision(each) for each in given]}


def _decision(answer: Json) -> Json:
    if isinstance(answer, dict):
        return answer
    return {"type": "approve" if answer is True else "reject"}


def _actions(value: object) -> list[Mapping[str, object]] | None:
    found = value.get(_ACTIONS) if isinstance(value, Mapping) else None
    if not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
        return None
    return found


def _prompt(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        texts = [value[name] for name in _TEXTS if isinstance(value.get(name), str)]
        if texts:
            return str(texts[0])
    return dumps_anything(value)
