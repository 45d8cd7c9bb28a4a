"""OpenAI's responses: https://platform.openai.com/docs/api-reference/responses-streaming."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from tests.vendor.frames import Frame, new_id, split
from tests.vendor.script import Call, Received, Turn, VendorUsage

_Item = dict[str, Any]


def whole(turn: Turn, request: Received) -> dict[str, Any]:
    """The answer at once."""
    return _response(turn, request, new_id("resp"), _items(turn), "completed")


def streamed(turn: Turn, request: Received) -> Iterator[Frame]:
    """The answer in pieces, with the numbers that the protocol gives them."""
    for number, (event, fields) in enumerate(_events(turn, request)):
        yield Frame({"type": event, "sequence_number": number} | fields, event=event)


def _events(turn: Turn, request: Received) -> Iterator[tuple[str, dict[str, Any]]]:
    id, items = new_id("resp"), _items(turn)
    begun = _response(turn, request, id, [], "in_progress") | {"usage": None}
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    for index, item in enumerate(items):
        yield from _item_events(turn, item, index)
    finished = _response(turn, request, id, items, "completed")
    if turn.finish == "length":
        details = {"reason": "max_output_tokens"}
        finished |= {"status": "incomplete", "incomplete_details": details}
    yield f"response.{finished['status']}", {"response": finished}


def _item_events(turn: Turn, item: _Item, index: int) -> Iterator[tuple[str, dict[str, Any]]]:
    at = {"output_index": index}
    empty: dict[str, _Item] = {
        "message": {"content": []},
        "reasoning": {"summary": []},
        "function_call": {"arguments": ""},
    }
    opened = item | empty[item["type"]] | {"status": "in_progress"}
    yield "response.output_item.added", at | {"item": opened}
    within = at | {"item_id": item["id"]}
    if item["type"] == "message":
        yield from _text_events(turn, item, within)
    elif item["type"] == "reasoning":
        yield from _reasoning_events(turn, item, within)
    else:
        for part in split(item["arguments"]):
            yield "response.function_call_arguments.delta", within | {"delta": part}
        told = {"arguments": item["arguments"], "name": item["name"]}
        yield "response.function_call_arguments.done", within | told
    yield "response.output_item.done", at | {"item": item}


def _text_events(
    turn: Turn, item: _Item, within: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    at, part = within | {"content_index": 0}, item["content"][0]
    yield "response.content_part.added", at | {"part": part | {"text": ""}}
    for piece in turn.pieces:
        yield "response.output_text.delta", at | {"delta": piece, "logprobs": []}
    yield "response.output_text.done", at | {"text": part["text"], "logprobs": []}
    yield "response.content_part.done", at | {"part": part}


def _reasoning_events(
    turn: Turn, item: _Item, within: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    at, part = within | {"summary_index": 0}, item["summary"][0]
    yield "response.reasoning_summary_part.added", at | {"part": part | {"text": ""}}
    for piece in turn.reasoning:
        yield "response.reasoning_summary_text.delta", at | {"delta": piece}
    yield "response.reasoning_summary_text.done", at | {"text": part["text"]}
    yield "response.reasoning_summary_part.done", at | {"part": part}


def _items(turn: Turn) -> list[_Item]:
    items: list[_Item] = []
    if turn.reasoning:
        summary = [{"type": "summary_text", "text": "".join(turn.reasoning)}]
        items.append({"id": new_id("rs"), "type": "reasoning", "summary": summary})
    if turn.pieces:
        text = "".join(turn.pieces)
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        message = {"type": "message", "role": "assistant", "status": "completed"}
        items.append({"id": new_id("msg")} | message | {"content": [part]})
    return items + [_call(each) for each in turn.calls]


def _call(call: Call) -> _Item:
    return {
        "id": new_id("fc"),
        "type": "function_call",
        "status": "completed",
        "call_id": call.id or new_id("call"),
        "name": call.name,
        "arguments": call.text,
    }


def _response(
    turn: Turn, request: Received, id: str, output: list[_Item], status: str
) -> dict[str, Any]:
    return {
        "id": id,
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": request.body.get("instructions"),
        "model": request.body.get("model", ""),
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": request.body.get("tool_choice", "auto"),
        "tools": request.body.get("tools", []),
        "temperature": 1.0,
        "top_p": 1.0,
        "metadata": {},
        "usage": _usage(turn.usage) if turn.usage else None,
    }


def _usage(usage: VendorUsage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }
