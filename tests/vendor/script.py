"""What the vendor is told to say, and what it was asked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call of a model."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)
    """As text if it is to be wrong."""
    id: str = ""
    """Empty: made up."""

    @property
    def text(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True, slots=True)
class VendorUsage:
    """Tokens as a vendor counts them: all input, all output; of these the cached and the reasoning."""

    input: int = 10
    output: int = 5
    cached: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong. A frame is one server-sent event of a streamed answer."""

    status: int = 0
    """Answer with this status instead of a completion."""
    retry_after: str = ""
    """The header of that answer, in seconds."""
    message: str = "the vendor has a problem"
    location: str = ""
    """Redirect there, with `status` 3xx."""
    refuse: bool = False
    """Close the connection instead of answering."""
    hang: bool = False
    """Answer nothing at all, until the caller hangs up."""
    cut_after: int | None = None
    """Close the connection in the middle, after so many frames."""
    silent_after: int | None = None
    """Say nothing more after so many frames, until the caller hangs up."""
    malformed_after: int | None = None
    """After so many frames one that is no JSON."""
    error_after: int | None = None
    """After so many frames an error in the vendor's form, and the end."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer of the model."""

    text: str | Sequence[str] = ()
    """In the pieces in which it is streamed."""
    reasoning: Sequence[str] = ()
    calls: Sequence[Call] = ()
    usage: VendorUsage | None = field(default_factory=VendorUsage)
    """None: the vendor does not say, whatever it is asked."""
    finish: str = ""
    """`length` if it was cut; else by what it says."""
    gap_s: float = 0.0
    """Between frames."""
    fault: Fault | None = None

    @property
    def pieces(self) -> Sequence[str]:
        return (self.text,) if isinstance(self.text, str) else self.text

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Turn:
        """As it is sent to a vendor that is a process of its own."""
        fields = dict(found)
        fields["calls"] = [Call(**each) for each in fields.get("calls", ())]
        if fields.get("usage"):
            fields["usage"] = VendorUsage(**fields["usage"])
        if fields.get("fault"):
            fields["fault"] = Fault(**fields["fault"])
        return cls(**fields)


@dataclass(slots=True)
class Received:
    """One request, and what became of it. Times are of `time.monotonic`, one clock for the machine."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in small letters."""
    body: dict[str, Any]
    at_s: float
    peer: int = 0
    """Port that the caller came from: the same for requests on one connection."""
    frames: int = 0
    """Sent so far."""
    ended_at_s: float | None = None
    """When the answer was complete."""
    disconnected_at_s: float | None = None
    """When the caller hung up before that."""

    @property
    def key(self) -> str:
        """The credential that came along."""
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        return bearer or self.headers.get("x-api-key", "")

    @property
    def streamed(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def tools(self) -> list[str]:
        """Names of the tools that the model was offered."""
        return [
            each.get("name") or each.get("function", {}).get("name", "")
            for each in self.body.get("tools") or ()
        ]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation, in the protocol's own form."""
        found = self.body.get("messages", self.body.get("input", []))
        return [{"role": "user", "content": found}] if isinstance(found, str) else list(found)

    @property
    def last_user_text(self) -> str:
        """What the user said last."""
        said = (_text(each.get("content")) for each in reversed(self.messages) if _is_user(each))
        return next((each for each in said if each), "")

    @property
    def tool_results(self) -> list[str]:
        """What tools have answered so far, in order, in any of the protocols."""
        return [text for each in self.messages for text in _results(each)]


def echo(request: Received) -> Turn:
    """What the vendor says when nothing is scripted: what the user said, word by word."""
    words = request.last_user_text.split(" ")
    pieces = [word + " " for word in words[:-1]] + words[-1:]
    return Turn(text=["You said: ", *pieces], usage=VendorUsage(len(words), len(words) + 2))


def _is_user(message: Mapping[str, Any]) -> bool:
    return message.get("role") == "user"


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    kinds = ("text", "input_text")
    return " ".join(each["text"] for each in parts if each.get("type") in kinds)


def _results(message: Mapping[str, Any]) -> list[str]:
    if message.get("role") == "tool":
        return [_text(message.get("content"))]
    if message.get("type") == "function_call_output":
        return [_text(message.get("output"))]
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return [_text(each.get("content")) for each in parts if each.get("type") == "tool_result"]
