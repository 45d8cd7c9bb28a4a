"""OpenAI's chat completions: https://platform.openai.com/docs/api-reference/chat."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from tests.vendor.frames import Frame, new_id, split
from tests.vendor.script import Received, Turn, VendorUsage


def whole(turn: Turn, request: Received, reasoning_field: str) -> dict[str, Any]:
    """The answer at once."""
    message: dict[str, Any] = {"role": "assistant", "content": "".join(turn.pieces) or None}
    if turn.reasoning:
        message[reasoning_field] = "".join(turn.reasoning)
    if turn.calls:
        message["tool_calls"] = [
            {"id": each.id or new_id("call"), "type": "function",
             "function": {"name": each.name, "arguments": each.text}}
            for each in turn.calls
        ]  # fmt: skip
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(turn)}
    body = _head(request, new_id("chatcmpl"), "chat.completion") | {"choices": [choice]}
    return body | ({"usage": _usage(turn.usage)} if turn.usage else {})


def streamed(turn: Turn, request: Received, reasoning_field: str) -> Iterator[Frame]:
    """The answer in pieces."""
    options = request.body.get("stream_options") or {}
    with_usage = bool(options.get("include_usage")) and turn.usage is not None
    head = _head(request, new_id("chatcmpl"), "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None) -> Frame:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return Frame(
            head | {"choices": [choice]} | ({"usage": None} if with_usage else {}), event=""
        )

    yield chunk({"role": "assistant", "content": ""})
    for piece in turn.reasoning:
        yield chunk({reasoning_field: piece})
    for piece in turn.pieces:
        yield chunk({"content": piece})
    for index, call in enumerate(turn.calls):
        function = {"name": call.name, "arguments": ""}
        opened = {"index": index, "id": call.id or new_id("call"), "type": "function"}
        yield chunk({"tool_calls": [opened | {"function": function}]})
        for part in split(call.text):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    yield chunk({}, _finish(turn))
    if with_usage and turn.usage is not None:
        yield Frame(head | {"choices": [], "usage": _usage(turn.usage)}, event="")
    yield Frame("[DONE]", event="")


def error(status: int, message: str) -> dict[str, Any]:
    """The body of a refusal; the responses API has the same."""
    codes = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
    kinds = {401: "invalid_request_error", 429: "requests"}
    return {
        "error": {
            "message": message,
            "type": kinds.get(status, "server_error"),
            "param": None,
            "code": codes.get(status),
        }
    }


def _head(request: Received, id: str, kind: str) -> dict[str, Any]:
    model = request.body.get("model", "")
    return {
        "id": id,
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "service_tier": "default",
        "system_fingerprint": "fp_vendor",
    }


def _finish(turn: Turn) -> str:
    return turn.finish or ("tool_calls" if turn.calls else "stop")


def _usage(usage: VendorUsage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning, "audio_tokens": 0},
    }
