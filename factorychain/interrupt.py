"""Ending a run with questions: `raise Interrupt(Request(…))`; the answers start the next run."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from factorychain._instance.spec import InputRequest
from factorychain._instance.values import NotJson, clean_text, dumps
from factorychain.input import Json

RequestKind = Literal["question", "approval", "tool"]
REQUESTS_MAX: Final = 32

_KINDS: Final = ("question", "approval", "tool")
_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_APPROVAL: Final = '{"type":"boolean"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Something that the user is asked.

    Raises:
        ValueError: what it says of itself cannot be, or has no JSON form.
    """

    prompt: str = ""
    """What the user reads."""
    kind: RequestKind = "question"
    """A question; something to be approved (the answer is true or false unless `schema` says otherwise); or
    a tool that the client executes, whose result is the answer."""
    schema: Mapping[str, Json] | None = None
    """JSON Schema (draft 2020-12) of the answer; without one it may be anything."""
    request: str = field(default_factory=lambda: f"q{secrets.token_hex(6)}")
    """Its id, unique in the run: 1 to 128 visible ASCII characters."""
    tool: str = ""
    """The tool that is to be approved, or that the client executes."""
    arguments: Mapping[str, Json] | None = None
    """The arguments of that call."""

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"kind is {self.kind!r}; it must be one of {', '.join(_KINDS)}")
        if not _ID.fullmatch(self.request):
            raise ValueError(f"request {self.request[:40]!r}: 1 to 128 visible ASCII characters")
        if self.kind == "tool" and not self.tool:
            raise ValueError("kind tool needs the tool's name: tool=…")
        if not (self.prompt or self.tool):
            raise ValueError("a request needs a prompt, or the tool that it is about")
        if len(self.tool) > 128 or not self.tool.isprintable():
            raise ValueError("tool: at most 128 printable characters")
        self.plain()

    def plain(self, call: str = "") -> InputRequest:
        """As it crosses the border to the host.

        Args:
            call: id of the call that is to be approved.
        """
        schema = _APPROVAL if self.kind == "approval" else ""
        try:
            return InputRequest(
                request=self.request,
                kind=self.kind,
                prompt=clean_text(self.prompt),
                schema_json=schema if self.schema is None else dumps(dict(self.schema)),
                tool=clean_text(self.tool),
                arguments_json=dumps(dict(self.arguments or {})) if self.tool else "",
                call=call,
            )
        except NotJson as error:
            raise ValueError(f"request {self.request}: {error}") from error


class Interrupt(Exception):
    """Ends the run with requests. When all are answered, the next run of the thread begins: the same agent
    with the same input, and `ctx.resume` has the answers by request.

    `raise Interrupt(Request(prompt="Which city?"))`; several, or a list of them, are asked together.
    """

    def __init__(
        self, *requests: Request | str | Sequence[Request | str], output: object = None
    ) -> None:
        """Take the requests; a text is a question.

        Args:
            requests: at least one.
            output: what the run returns besides.

        Raises:
            ValueError: there are none, more than 32, or two with one id.
        """
        self.requests = tuple(_flat(requests))
        self.output = output
        super().__init__(", ".join(each.prompt or each.tool for each in self.requests))
        if not 0 < len(self.requests) <= REQUESTS_MAX:
            raise ValueError(f"an Interrupt has 1 to {REQUESTS_MAX} requests")
        ids = [each.request for each in self.requests]
        if len(set(ids)) < len(ids):
            raise ValueError("every request of an Interrupt needs an id of its own")


def _flat(requests: Sequence[Request | str | Sequence[Request | str]]) -> list[Request]:
    found: list[Request] = []
    for each in requests:
        if isinstance(each, Request):
            found.append(each)
        elif isinstance(each, str):
            found.append(Request(prompt=each))
        else:
            found += _flat(each)
    return found
