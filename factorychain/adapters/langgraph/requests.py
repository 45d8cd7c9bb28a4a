"""What a graph asks a human with `interrupt()`, and the way back of the answers.

| `interrupt(value)` | request |
|---|---|
| a text | a question |
| an object with a text under `question`, `prompt`, `message` or `description` | a question |
| `action_requests` (LangChain's `HumanInTheLoopMiddleware`) | an approval for each |
| anything else | a question with the value as JSON |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from langgraph.types import Interrupt as GraphInterrupt

from factorychain._instance.values import dumps_anything
from factorychain.context import Interrupt
from factorychain.errors import AgentError
from factorychain.input import Json

Waiting: TypeAlias = GraphInterrupt[object]

_TEXTS: Final = ("question", "prompt", "message", "description", "text")
_ACTIONS: Final = "action_requests"
_DECISIONS: Final = "decisions"


def interrupt_for(waiting: Sequence[Waiting]) -> Interrupt:
    """What ends the run, with a request for each answer that the graph needs."""
    return Interrupt([request for each in waiting for request in _requests(each)])


def resume_values(waiting: Sequence[Waiting], answers: Mapping[str, Json]) -> dict[str, object]:
    """What the graph goes on with, by the interrupt's id.

    Raises:
        AgentError: NOTHING_TO_RESUME, the graph does not wait for these answers any more.
    """
    found = {each.id: _answer(each, answers) for each in waiting if _requested(each, answers)}
    if not found:
        raise AgentError(
            "What was asked is over; say it again as a new message", reason="NOTHING_TO_RESUME"
        )
    return found


def _requests(waiting: Waiting) -> list[dict[str, object]]:
    actions = _actions(waiting.value)
    if actions is None:
        asked: dict[str, object] = {"kind": "question", "prompt": _prompt(waiting.value)}
        if isinstance(waiting.response_schema, dict):
            asked["schema"] = waiting.response_schema
        return [{**asked, "request": waiting.id}]
    return [
        {
            "kind": "approval",
            "prompt": _prompt(each),
            "tool": str(each.get("name", "")),
            "arguments": each.get("args") or {},
            "request": f"{waiting.id}.{at}",
        }
        for at, each in enumerate(actions)
    ]


def _requested(waiting: Waiting, answers: Mapping[str, Json]) -> bool:
    return any(each["request"] in answers for each in _requests(waiting))


def _answer(waiting: Waiting, answers: Mapping[str, Json]) -> object:
    actions = _actions(waiting.value)
    if actions is None:
        return answers[waiting.id]
    given = [answers.get(f"{waiting.id}.{at}") for at in range(len(actions))]
    return {_DECISIONS: [_decision(each) for each in given]}


def _decision(answer: Json) -> Json:
    """Yes or no, or a decision as LangChain takes it: `{"type": "approve" | "edit" | "reject", …}`."""
    if isinstance(answer, dict) and "type" in answer:
        return answer
    approved = answer.get("approved") if isinstance(answer, dict) else answer
    if approved is True:
        return {"type": "approve"}
    reason = answer.get("reason") if isinstance(answer, dict) else None
    return {"type": "reject", "message": reason} if reason else {"type": "reject"}


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
