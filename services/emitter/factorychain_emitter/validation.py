"""What each kind of event must look like, and how it is cleaned field by field.

Invariant: an event that passes has valid identifiers, valid JSON and clean texts, and is within its
size; an ending and `agent_started` always pass: what is wrong with them is mended instead.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import orjson
from google.protobuf.message import Message

from factorychain._core.event_kinds import LIFECYCLE
from factorychain._core.execution_context import Scope, UserExecutionContext
from factorychain.types.v1.event_pb2 import (
    AgentFailed,
    Event,
    InputKind,
    InputRequested,
    ToolFailure,
)
from factorychain_emitter.rejection import Rejected
from factorychain_emitter.sanitising import Sanitiser, parse_json, without_control

NAME_MAX_CHARS = 128
PATH_MAX = 16

_ID = re.compile(r"[\x21-\x7e]{1,128}")
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_LAST_SECOND = 253_402_300_799  # the last that RFC 3339 can write


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes, in bytes."""

    event_max_bytes: int
    output_max_bytes: int


# A rule says what a field must be, and returns it cleaned.
_Rule = Callable[[Sanitiser, str], str]


def _identifier(sanitiser: Sanitiser, value: str) -> str:
    if not _ID.fullmatch(value):
        raise Rejected("INVALID_FIELD", "expected 1 to 128 visible ASCII characters")
    return sanitiser.text(value)


def _name(sanitiser: Sanitiser, value: str) -> str:
    if not 0 < len(value) <= NAME_MAX_CHARS or not value.isprintable():
        raise Rejected("INVALID_FIELD", f"expected 1 to {NAME_MAX_CHARS} printable characters")
    return sanitiser.text(value)


def _text(sanitiser: Sanitiser, value: str) -> str:
    return sanitiser.text(value)


def _json(sanitiser: Sanitiser, value: str) -> str:
    return sanitiser.json(value) if value else value


def _object(sanitiser: Sanitiser, value: str) -> str:
    return sanitiser.json(value, must_be_object=True) if value else value


def _reason(_: Sanitiser, value: str) -> str:
    if not _REASON.fullmatch(value):
        raise Rejected("INVALID_FIELD", "expected upper snake case")
    return value


def _delta(_: Sanitiser, value: str) -> str:
    # Secrets in it are looked for in the whole message, of which this is a piece.
    return without_control(value)


_RULES: dict[str, tuple[tuple[str, _Rule], ...]] = {
    "agent_thinking": (("text", _text),),
    "tool_executing": (("call", _identifier), ("tool", _name), ("arguments_json", _object)),
    "tool_completed": (("call", _identifier), ("tool", _name), ("result_json", _json)),
    "message_delta": (("message", _identifier), ("text", _delta)),
    "thinking_delta": (("message", _identifier), ("text", _delta)),
    "tool_progress": (("call", _identifier), ("data_json", _json)),
    "input_requested": (
        ("request", _identifier),
        ("prompt", _text),
        ("schema_json", _object),
    ),
    "input_received": (("request", _identifier), ("value_json", _json)),
    "custom": (("name", _name), ("data_json", _json)),
    "run_queued": (("input_json", _json),),
    "agent_started": (("input_json", _json), ("metadata_json", _object)),
    "agent_completed": (("output_json", _json),),
    "agent_failed": (("reason", _reason), ("message", _text)),
    "agent_cancelled": (("reason", _reason),),
}
# Optional identifiers: set or not, and if set, well formed.
_OPTIONAL_IDS = {
    "tool_executing": "message",
    "agent_completed": "message",
    "input_requested": "call",
    "agent_started": "replaces",
}
# What takes the place of a field of a lifecycle event that is beyond cleaning.
_MENDED = {
    "input_json": "null",
    "arguments_json": "{}",
    "metadata_json": "{}",
    "reason": "UNKNOWN",
    "message": "",
}


class Validator:
    """Checks and cleans the events of one run."""

    def __init__(self, ctx: UserExecutionContext, limits: Limits, sanitiser: Sanitiser) -> None:
        self._ctx = ctx
        self._limits = limits
        self._sanitiser = sanitiser

    def check(self, kind: str, event: Event, size_bytes: int) -> None:
        """Checks an event and cleans it in place; raises `Rejected`."""
        lifecycle = kind in LIFECYCLE
        if size_bytes > self._limits.event_max_bytes and not lifecycle and kind != "tool_completed":
            raise Rejected(
                "EVENT_TOO_LARGE",
                f"the event has {size_bytes} bytes, the limit is {self._limits.event_max_bytes}",
            )
        self._envelope(event)
        body = getattr(event, kind)
        for field, rule in _RULES[kind]:
            self._field(body, field, rule, lifecycle)
        optional = _OPTIONAL_IDS.get(kind)
        if optional is not None and body.HasField(optional):
            self._optional_id(body, optional, lifecycle)
        special = _SPECIAL.get(kind)
        if special is not None:
            special(self, event)

    def _field(self, body: Message, field: str, rule: _Rule, lifecycle: bool) -> None:
        value: str = getattr(body, field)
        try:
            cleaned = rule(self._sanitiser, value)
        except Rejected as rejected:
            if not lifecycle:
                raise Rejected(rejected.reason, f"{field}: {rejected.message}") from None
            cleaned = _MENDED.get(field, "")
        if cleaned != value:
            setattr(body, field, cleaned)

    def _optional_id(self, body: Message, field: str, lifecycle: bool) -> None:
        if _ID.fullmatch(getattr(body, field)):
            return
        if not lifecycle:
            raise Rejected("INVALID_FIELD", f"{field}: expected 1 to 128 visible ASCII characters")
        body.ClearField(field)

    def _envelope(self, event: Event) -> None:
        """What is around every event; numbers and names that delivery fills in are dropped."""
        event.DiscardUnknownFields()
        if event.seq or event.run:
            event.ClearField("seq")
            event.ClearField("run")
        if not 0 < event.at.seconds <= _LAST_SECOND or not 0 <= event.at.nanos < 1_000_000_000:
            event.at.FromNanoseconds(time.time_ns())
        if event.trace and not _TRACE.fullmatch(event.trace):
            event.ClearField("trace")
        if event.path:
            self._path(event)

    def _path(self, event: Event) -> None:
        names = list(event.path)
        if len(names) > PATH_MAX:
            raise Rejected("INVALID_FIELD", f"path: more than {PATH_MAX} agents within each other")
        event.path[:] = [_name(self._sanitiser, name) for name in names]

    # --- what some kinds need beside their fields -------------------------------------------

    def _started(self, event: Event) -> None:
        started = event.agent_started
        if started.HasField("resumes"):
            self._optional_id(started, "resumes", lifecycle=True)
        # Who runs is what the token says, whatever the agents layer says.
        event.agent_started.agent = self._ctx.agent
        event.agent_started.attempt = self._ctx.attempt

    def _completed_tool(self, event: Event) -> None:
        completed = event.tool_completed
        if completed.HasField("error"):
            self._tool_failure(completed.error)
        limit = self._limits.event_max_bytes
        if event.ByteSize() > limit:
            completed.truncated = True
            rest = event.ByteSize() - len(completed.result_json.encode())
            completed.result_json = cut_json(completed.result_json, max(0, limit - rest - 8))
            if completed.HasField("error"):
                completed.error.message = completed.error.message[: limit // 8]
        if event.ByteSize() > limit:
            raise Rejected("EVENT_TOO_LARGE", f"even without its result; the limit is {limit}")

    def _tool_failure(self, error: ToolFailure) -> None:
        self._field(error, "reason", _reason, lifecycle=False)
        self._field(error, "message", _text, lifecycle=False)

    def _completed(self, event: Event) -> None:
        completed = event.agent_completed
        output = completed.output_json
        for request in completed.pending:
            for field, rule in _RULES["input_requested"]:
                self._field(request, field, rule, lifecycle=True)
            self._about_call(request, lifecycle=True)
            if request.kind not in _INPUT_KINDS:
                request.kind = InputKind.INPUT_KIND_QUESTION
        limit = self._limits.output_max_bytes
        size = len(output.encode())
        if size > limit:
            message = f"The agent's output has {size} bytes; the limit is {limit}"
            fail(event, "OUTPUT_TOO_LARGE", message)
        elif not output:
            fail(event, "INVALID_OUTPUT", "The agent's output is not JSON")
        elif event.ByteSize() > limit + self._limits.event_max_bytes:
            fail(event, "OUTPUT_TOO_LARGE", "What the agent waits for is too large")

    def _failed(self, event: Event) -> None:
        failed = event.agent_failed
        if event.ByteSize() > self._limits.event_max_bytes:
            failed.message = failed.message[: self._limits.event_max_bytes // 8]

    def _requested(self, event: Event) -> None:
        if event.input_requested.kind not in _INPUT_KINDS:
            raise Rejected("INVALID_FIELD", "kind: expected question, approval or tool")
        self._about_call(event.input_requested, lifecycle=False)

    def _about_call(self, request: InputRequested, *, lifecycle: bool) -> None:
        if request.HasField("tool"):
            self._field(request, "tool", _name, lifecycle)
        if request.HasField("arguments_json"):
            self._field(request, "arguments_json", _object, lifecycle)

    def _received(self, event: Event) -> None:
        received = event.input_received
        if received.HasField("closed"):
            self._field(received, "closed", _reason, lifecycle=False)

    def _begun(self, event: Event) -> None:
        if not event.tool_executing.arguments_json:
            event.tool_executing.arguments_json = "{}"


_INPUT_KINDS = frozenset(InputKind.values()) - {InputKind.INPUT_KIND_UNSPECIFIED}
_SPECIAL: dict[str, Callable[[Validator, Event], None]] = {
    "agent_started": Validator._started,
    "tool_executing": Validator._begun,
    "tool_completed": Validator._completed_tool,
    "agent_completed": Validator._completed,
    "agent_failed": Validator._failed,
    "input_requested": Validator._requested,
    "input_received": Validator._received,
}


def fail(event: Event, reason: str, message: str) -> None:
    """Turns `agent_completed` into `agent_failed`, keeping what the run has used."""
    usage = event.agent_completed.usage
    event.agent_failed.CopyFrom(AgentFailed(reason=reason, message=message, usage=usage))


def cut_json(raw: str, max_bytes: int) -> str:
    """The beginning of a JSON document as a JSON string of at most so many bytes: of the text if it
    is a string, else of the document itself.
    """
    value = parse_json(raw)
    text = value if isinstance(value, str) else raw
    low, high = 0, min(len(text), max_bytes)
    while low < high:
        middle = (low + high + 1) // 2
        if len(orjson.dumps(text[:middle])) <= max_bytes:
            low = middle
        else:
            high = middle - 1
    return orjson.dumps(text[:low]).decode()


def check_scope(ctx: UserExecutionContext, run_seq: int) -> None:
    """A run's own events are numbered, the engine's are not."""
    if ctx.scope is Scope.LIFECYCLE and run_seq:
        raise Rejected("NOT_ALLOWED", "events of a lifecycle token carry run_seq 0")
    if ctx.scope is Scope.RUN and not run_seq:
        raise Rejected("NOT_ALLOWED", "run_seq counts from 1")
