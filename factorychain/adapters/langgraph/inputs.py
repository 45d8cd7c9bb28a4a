"""A user's input in the form that a graph takes."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage

from factorychain._core.ids import Principal, thread_key
from factorychain.adapters.langgraph.shape import MESSAGES, Graph, Shape
from factorychain.context import RunContext
from factorychain.errors import AgentError
from factorychain.history import PastRun
from factorychain.input import FilePart, ImagePart, Input, Json, Part, TextPart

_UNANSWERED: Final = "The call did not end: its run was stopped"


def graph_input(shape: Shape, given: Input, run_id: str) -> object:
    """What the graph is started with.

    Raises:
        AgentError: INVALID_INPUT, it is not what the graph takes.
    """
    if shape.is_plain:
        return given.data if given.has_data else given.text
    data = _data(shape, given)
    if shape.has_messages:
        return {**data, MESSAGES: [user_message(given, run_id)]}
    if given.content and shape.text_field and shape.text_field not in data:
        data[shape.text_field] = given.text
    if not data:
        fields = ", ".join(shape.fields)
        raise AgentError(
            f"This agent takes data with these fields: {fields}", reason="INVALID_INPUT"
        )
    return data


def user_message(given: Input, run_id: str) -> HumanMessage:
    """The user's turn. Its id is the run's, so that the same turn again takes the place of the first."""
    parts = given.content
    if not parts or (len(parts) == 1 and isinstance(parts[0], TextPart)):
        return HumanMessage(given.text, id=run_id)
    return HumanMessage([_block(each) for each in parts], id=run_id)


def conversation(history: list[PastRun]) -> list[BaseMessage]:
    """Earlier turns from the records, for a graph that has kept nothing of them."""
    said: list[BaseMessage] = []
    for past in history:
        if past.state == "completed" and past.text:
            said += [user_message(past.input, past.run), AIMessage(past.text, id=f"{past.run}-1")]
    return said


def unanswered(messages: list[AnyMessage]) -> list[BaseMessage]:
    """Answers to calls that a run which was stopped left open: a model refuses to go on without them."""
    answered = set()
    for each in reversed(messages):
        if isinstance(each, ToolMessage):
            answered.add(each.tool_call_id)
        elif isinstance(each, AIMessage):
            return [
                ToolMessage(_UNANSWERED, tool_call_id=call["id"], name=call["name"], status="error")
                for call in each.tool_calls
                if call["id"] not in answered
            ]
        else:
            return []
    return []


def configurable(ctx: RunContext) -> dict[str, object]:
    """What the graph's code finds in `config["configurable"]`.

    `user_id` and `thread_id` are unique among the users of all tenants, so that a store of the author's
    own that goes by them can never mix two: `user` and `thread` alone are unique for their tenant and
    user only.
    """
    ukey = Principal(ctx.tenant, ctx.user).ukey
    return {
        "thread_id": f"{ukey}.{thread_key(ctx.thread)}",
        "thread": ctx.thread,
        "run_id": ctx.run_id,
        "user_id": ukey,
        "user": ctx.user,
        "tenant": ctx.tenant,
        "metadata": dict(ctx.metadata),
        "context": [{"description": key, "value": value} for key, value in ctx.context],
    }


def context_for(graph: Graph, found: Mapping[str, object]) -> object:
    """The `context` of a graph that has a schema for it: those of its fields that are known here."""
    schema = graph.context_schema
    if schema is None:
        return None
    names = getattr(schema, "__annotations__", {})
    return {name: value for name, value in found.items() if name in names}


def _data(shape: Shape, given: Input) -> dict[str, object]:
    if not given.has_data or given.data is None:
        return {}
    if not isinstance(given.data, Mapping):
        raise AgentError("This agent takes data that is an object", reason="INVALID_INPUT")
    return {name: given.data[name] for name in shape.fields if name in given.data}


def _block(part: Part) -> dict[str, Json]:
    """A standard content block of LangChain, which its chat models translate for their vendor."""
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    assert isinstance(part, ImagePart | FilePart)
    block: dict[str, Json] = {"type": "image" if isinstance(part, ImagePart) else "file"}
    if part.media_type:
        block["mime_type"] = part.media_type
    if part.url:
        return {**block, "url": part.url}
    return {**block, "base64": base64.b64encode(part.data).decode()}
