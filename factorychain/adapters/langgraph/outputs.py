"""What a run's output is made of: the graph's last state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from factorychain._instance.values import dumps_anything
from factorychain.adapters.langgraph.shape import MESSAGES
from factorychain.input import Json

_STRUCTURED = "structured_response"
"""Where graphs of `create_agent` with a response format put what they came to."""


def output_of(state: object, turn: str) -> Json:
    """The text of the last answer in the conversation; without a conversation, the state as JSON.

    Args:
        state: the graph's last output.
        turn: id of the message that the run began with: what stands before it is no answer to it.
    """
    structured = _field(state, _STRUCTURED)
    if structured is not None:
        return _json(structured)
    messages = _field(state, MESSAGES)
    if isinstance(messages, Sequence) and not isinstance(messages, str):
        return _answer(messages, turn)
    return _json(state)


def _answer(messages: Sequence[object], turn: str) -> str:
    last = messages[-1] if messages else None
    for each in reversed(messages):
        if isinstance(each, AIMessage) and each.text:
            return str(each.text)
        if isinstance(each, BaseMessage) and each.id == turn:
            break
    # A tool's result may be the answer.
    return str(last.text) if isinstance(last, ToolMessage) else ""


def _field(state: object, name: str) -> object:
    return state.get(name) if isinstance(state, Mapping) else getattr(state, name, None)


def _json(state: object) -> Json:
    if isinstance(state, BaseMessage):
        return str(state.text)
    found: Json = orjson.loads(dumps_anything(state))
    return found
