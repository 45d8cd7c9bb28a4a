"""Anthropic's messages: https://docs.anthropic.com/en/docs/build-with-claude/streaming."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.vendor.frames import Frame, new_id, split
from tests.vendor.script import Received, Turn, VendorUsage

_Block = dict[str, Any]


def whole(turn: Turn, request: Received) -> dict[str, Any]:
    """The answer at once."""
    usage = turn.usage or VendorUsage(0, 0)
    head = _head(request) | {"content": _blocks(turn), "stop_reason": _stop(turn)}
    return head | {"usage": _input(usage) | {"output_tokens": usage.output}}


def streamed(turn: Turn, request: Received) -> Iterator[Frame]:
    """The answer in pieces."""
    usage = turn.usage or VendorUsage(0, 0)
    head = _head(request) | {"content": [], "stop_reason": None}
    yield _frame("message_start", message=head | {"usage": _input(usage) | {"output_tokens": 1}})
    for index, block in enumerate(_blocks(turn)):
        yield from _block_frames(turn, block, index)
        if index == 0:
            yield _frame("ping")
    delta = {"stop_reason": _stop(turn), "stop_sequence": None}
    yield _frame("message_delta", delta=delta, usage={"output_tokens": usage.output})
    yield _frame("message_stop")


def error(status: int, message: str) -> dict[str, Any]:
    """The body of a refusal, and of an error in a stream."""
    kinds = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}
    told = {"type": kinds.get(status, "api_error"), "message": message}
    return {"type": "error", "error": told, "request_id": new_id("req")}


def _block_frames(turn: Turn, block: _Block, index: int) -> Iterator[Frame]:
    empty: dict[str, _Block] = {
        "text": {"text": ""},
        "thinking": {"thinking": "", "signature": ""},
        "tool_use": {"input": {}},
    }
    yield _frame("content_block_start", index=index, content_block=block | empty[block["type"]])
    for delta in _deltas(turn, block):
        yield _frame("content_block_delta", index=index, delta=delta)
    yield _frame("content_block_stop", index=index)


def _deltas(turn: Turn, block: _Block) -> Iterator[dict[str, Any]]:
    if block["type"] == "text":
        yield from ({"type": "text_delta", "text": each} for each in turn.pieces)
    elif block["type"] == "thinking":
        yield from ({"type": "thinking_delta", "thinking": each} for each in turn.reasoning)
        yield {"type": "signature_delta", "signature": block["signature"]}
    else:
        given = block["input"]
        for part in split(given if isinstance(given, str) else json.dumps(given)):
            yield {"type": "input_json_delta", "partial_json": part}


def _blocks(turn: Turn) -> list[_Block]:
    blocks: list[_Block] = []
    if turn.reasoning:
        thinking = "".join(turn.reasoning)
        blocks.append({"type": "thinking", "thinking": thinking, "signature": "signed"})
    if turn.pieces:
        blocks.append({"type": "text", "text": "".join(turn.pieces)})
    return blocks + [
        {"type": "tool_use", "id": each.id or new_id("toolu"), "name": each.name, "input": each.arguments}
        for each in turn.calls
    ]  # fmt: skip


def _head(request: Received) -> dict[str, Any]:
    model = request.body.get("model", "")
    return {
        "id": new_id("msg"),
        "type": "message",
        "role": "assistant",
        "model": model,
        "stop_sequence": None,
    }


def _stop(turn: Turn) -> str:
    if turn.finish == "length":
        return "max_tokens"
    return turn.finish or ("tool_use" if turn.calls else "end_turn")


def _input(usage: VendorUsage) -> dict[str, Any]:
    # What was cached is not among this vendor's input tokens, but beside them.
    return {
        "input_tokens": usage.input - usage.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
    }


def _frame(kind: str, **fields: Any) -> Frame:
    return Frame({"type": kind} | fields, event=kind)
