"""What the gateway reads in answers of models: the usage, the model, whether the answer is whole.

Invariant: nothing that a server sends makes these raise; a number that cannot be is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from factorychain.input import Json

Object: TypeAlias = Mapping[str, Json]

_COUNT_MAX: Final = 2**40
_NAME_MAX_CHARS: Final = 128
_NONE: Final[Object] = {}
CHARS_PER_TOKEN: Final = 4
"""What a token is taken for where the vendor has not counted."""


@dataclass(slots=True)
class Counted:
    """Tokens of one request."""

    input: int = 0
    output: int = 0
    cached: int = 0
    """Of the input."""
    reasoning: int = 0
    """Of the output."""

    @property
    def total(self) -> int:
        return self.input + self.output


class Reader(Protocol):
    """Reads one answer in one protocol, at once or in its events."""

    counted: Counted | None
    """As the vendor says; None while it has not."""
    model: str
    """That has answered."""
    finish: str
    """Why the answer ended."""
    chars: int
    """Of what the model has said in events so far."""
    ended: bool
    """The answer is whole."""
    failed: bool
    """The vendor says in the answer that it could not be made."""

    def whole(self, body: Object) -> None:
        """The answer at once."""
        ...

    def event(self, body: Object) -> None:
        """The next event of the answer."""
        ...


class _State:
    """What all readers have."""

    def __init__(self) -> None:
        self.counted: Counted | None = None
        self.model = ""
        self.finish = ""
        self.chars = 0
        self.ended = False
        self.failed = False

    def _heard(self, body: Object) -> None:
        model = body.get("model")
        if isinstance(model, str) and model:
            self.model = model[:_NAME_MAX_CHARS]
        if isinstance(body.get("error"), Mapping):
            self.failed = True

    def _finished(self, reason: Json) -> None:
        if isinstance(reason, str) and reason:
            self.finish = reason[:_NAME_MAX_CHARS]


class ChatReader(_State):
    """OpenAI's chat completions, completions and embeddings."""

    def whole(self, body: Object) -> None:
        self._read(body)
        self.ended = True

    def event(self, body: Object) -> None:
        self._read(body)
        for choice in _objects(body.get("choices")):
            self.chars += _chars(choice.get("delta")) + _chars(choice.get("text"))
        self.ended = self.ended or bool(self.finish)

    def _read(self, body: Object) -> None:
        self._heard(body)
        usage = body.get("usage")
        if isinstance(usage, dict):
            self.counted = _of_completions(usage)
        for choice in _objects(body.get("choices")):
            self._finished(choice.get("finish_reason"))


class ResponsesReader(_State):
    """OpenAI's responses."""

    def whole(self, body: Object) -> None:
        self._heard(body)
        usage = body.get("usage")
        if isinstance(usage, dict):
            self.counted = _of_responses(usage)
        self._finished(body.get("status"))
        self.failed = self.failed or self.finish == "failed"
        self.ended = True

    def event(self, body: Object) -> None:
        kind = body.get("type")
        if not isinstance(kind, str):
            self._heard(body)
        elif kind.endswith(".delta"):
            self.chars += _chars(body.get("delta"))
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            self.whole(_object(body.get("response")))
        elif kind == "error":
            self.failed = True


class MessagesReader(_State):
    """Anthropic's messages. The tokens that were cached stand beside its input tokens there."""

    def whole(self, body: Object) -> None:
        self._heard(body)
        self._usage(body.get("usage"))
        self._finished(body.get("stop_reason"))
        self.ended = True

    def event(self, body: Object) -> None:
        kind = body.get("type")
        if kind == "message_start":
            message = _object(body.get("message"))
            self._heard(message)
            self._usage(message.get("usage"))
        elif kind == "content_block_delta":
            self.chars += _chars(body.get("delta"))
        elif kind == "message_delta":
            self._finished(_object(body.get("delta")).get("stop_reason"))
            self._usage(body.get("usage"))
        elif kind == "message_stop":
            self.ended = True
        elif kind == "error":
            self.failed = True

    def _usage(self, found: Json) -> None:
        if not isinstance(found, dict):
            return
        counted = self.counted or Counted()
        if "input_tokens" in found:
            cached = _count(found.get("cache_read_input_tokens"))
            written = _count(found.get("cache_creation_input_tokens"))
            counted.input = _count(found.get("input_tokens")) + cached + written
            counted.cached = cached
        counted.output = max(counted.output, _count(found.get("output_tokens")))
        self.counted = counted


def estimate(body: Json) -> int:
    """About how many tokens a request has, of its texts; images and files are left out."""
    return _text_chars(body) // CHARS_PER_TOKEN


def _of_completions(usage: Object) -> Counted:
    return Counted(
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        _count(_object(usage.get("prompt_tokens_details")).get("cached_tokens")),
        _count(_object(usage.get("completion_tokens_details")).get("reasoning_tokens")),
    )


def _of_responses(usage: Object) -> Counted:
    return Counted(
        _count(usage.get("input_tokens")),
        _count(usage.get("output_tokens")),
        _count(_object(usage.get("input_tokens_details")).get("cached_tokens")),
        _count(_object(usage.get("output_tokens_details")).get("reasoning_tokens")),
    )


def _count(found: Json) -> int:
    return found if type(found) is int and 0 <= found < _COUNT_MAX else 0


def _object(found: Json) -> Object:
    return found if isinstance(found, dict) else _NONE


def _objects(found: Json) -> list[Object]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _chars(found: Json) -> int:
    """Of all texts in it, without what only names things."""
    if isinstance(found, str):
        return len(found)
    if isinstance(found, dict):
        named = ("role", "type", "id", "signature")
        return sum(_chars(each) for name, each in found.items() if name not in named)
    return sum(map(_chars, found)) if isinstance(found, list) else 0


def _text_chars(found: Json) -> int:
    if isinstance(found, str):
        return 0 if found.startswith("data:") else len(found)
    if isinstance(found, dict):
        kept = (each for name, each in found.items() if name not in ("data", "file_data"))
        return sum(map(_text_chars, kept))
    return sum(map(_text_chars, found)) if isinstance(found, list) else 0
