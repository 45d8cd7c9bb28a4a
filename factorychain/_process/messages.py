"""What is in the frames: the data of `factorychain._instance` to bytes and back.

Invariant: what comes from a run process is checked for shape, type and size here before it becomes one of
our objects, since whatever runs there can write anything.
"""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from typing import Final, TypeAlias, TypeGuard

import orjson

from factorychain._instance.spec import (
    AttributeValue,
    InputRequest,
    Outcome,
    OutcomeKind,
    RunSpec,
    SpanRecord,
)
from factorychain._instance.values import clean_text, error_reason, error_text
from factorychain._process.wire import BrokenFrame
from factorychain.input import Json
from factorychain.usage import Usage

_U32: Final = struct.Struct("!I")
_JsonObject: TypeAlias = dict[str, Json]

_NAME_MAX_CHARS: Final = 256
_ATTRIBUTES_MAX: Final = 32
_COUNT_MAX: Final = 2**53
_PENDING_MAX: Final = 32
_PENDING_MAX_BYTES: Final = 64 * 1024
_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_REQUEST_KEYS: Final = frozenset(InputRequest.__dataclass_fields__)
_KINDS: Final = frozenset({"question", "approval", "tool"})
_SPAN_KEYS: Final = frozenset(SpanRecord.__dataclass_fields__)


def number(value: int) -> bytes:
    """A `u32`."""
    return _U32.pack(value)


def numbered(payload: bytes) -> tuple[int, bytes]:
    """A payload that begins with a `u32`: it, and the rest.

    Raises:
        BrokenFrame: it is too short.
    """
    if len(payload) < _U32.size:
        raise BrokenFrame("a number is missing")
    return _U32.unpack_from(payload)[0], payload[_U32.size :]


def json_object(payload: bytes) -> _JsonObject:
    """A payload that is a JSON object.

    Raises:
        BrokenFrame: it is not.
    """
    try:
        found = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise BrokenFrame("this is not JSON") from error
    if not isinstance(found, dict):
        raise BrokenFrame("this is no JSON object")
    return found


def pack_spec(spec: RunSpec) -> bytes:
    """The spec: its input apart, which may be large and is JSON text already."""
    header = orjson.dumps(replace(spec, input_json=""))
    return _U32.pack(len(header)) + header + spec.input_json.encode()


def unpack_spec(payload: bytes) -> RunSpec:
    """The inverse of `pack_spec`."""
    length, rest = numbered(payload)
    fields = orjson.loads(rest[:length])
    fields["context"] = tuple((each[0], each[1]) for each in fields["context"])
    fields["credentials"] = tuple((each[0], each[1]) for each in fields["credentials"])
    fields["input_json"] = rest[length:].decode()
    return RunSpec(**fields)


def pack_outcome(outcome: Outcome) -> bytes:
    """The outcome: its output apart."""
    cleaned = replace(
        outcome,
        output_json="",
        reason=clean_text(outcome.reason),
        text=error_text(outcome.text),
    )
    header = orjson.dumps(cleaned)
    return _U32.pack(len(header)) + header + outcome.output_json.encode()


def unpack_outcome(payload: bytes, output_max_bytes: int) -> Outcome:
    """The inverse of `pack_outcome`, of bytes that may be anything.

    Raises:
        BrokenFrame: they are no outcome.
    """
    length, rest = numbered(payload)
    header, output = json_object(rest[:length]), rest[length:]
    try:
        kind = OutcomeKind(_text(header, "kind"))
        outcome = Outcome(
            kind,
            _output(output, output_max_bytes) if kind is OutcomeKind.COMPLETED else "",
            message=_text(header, "message", _NAME_MAX_CHARS),
            reason=_text(header, "reason", _NAME_MAX_CHARS),
            text=error_text(_text(header, "text")),
            retryable=header.get("retryable") is True,
            retry_after_s=_seconds(header.get("retry_after_s")),
            usage=_usage(header.get("usage")),
            pending=_pending(header) if kind is OutcomeKind.COMPLETED else (),
        )
    except ValueError as error:
        raise BrokenFrame(f"this is no outcome: {error}") from error
    if kind is OutcomeKind.FAILED:
        return replace(outcome, reason=error_reason(outcome.reason, "AGENT_FAILED"))
    # A cancel's reason is the host's to say, and what is completed has none.
    return replace(outcome, reason="", text="")


def _output(output: bytes, limit_bytes: int) -> str:
    if len(output) > limit_bytes:
        raise BrokenFrame(f"an output of {len(output)} bytes; at most {limit_bytes}")
    try:
        orjson.loads(output)
    except orjson.JSONDecodeError as error:
        raise BrokenFrame("the output is not JSON") from error
    return output.decode()


def _pending(header: _JsonObject) -> tuple[InputRequest, ...]:
    """What the user has to answer: a few, each with an id of its own."""
    found = header.get("pending", [])
    if not isinstance(found, list) or len(found) > _PENDING_MAX:
        raise BrokenFrame("the requests are not these")
    if len(orjson.dumps(found)) > _PENDING_MAX_BYTES:
        raise BrokenFrame(f"requests of more than {_PENDING_MAX_BYTES} bytes")
    pending = tuple(_request(each) for each in found)
    if len({each.request for each in pending}) < len(pending):
        raise BrokenFrame("two requests with one id")
    return pending


def _request(found: Json) -> InputRequest:
    if not isinstance(found, dict) or found.keys() != _REQUEST_KEYS:
        raise BrokenFrame("this is no request")
    texts = {name: _text(found, name) for name in _REQUEST_KEYS}
    if not _ID.fullmatch(texts["request"]) or texts["kind"] not in _KINDS:
        raise BrokenFrame("a request has an id and a kind")
    for name in ("schema_json", "arguments_json"):
        if texts[name]:
            json_object(texts[name].encode())
    return InputRequest(**texts)


def _usage(found: Json) -> Usage:
    if not isinstance(found, dict):
        raise BrokenFrame("the usage is missing")
    counts = {name: found.get(name) for name in Usage.__dataclass_fields__}
    for name, count in counts.items():
        if not _is_count(count):
            raise BrokenFrame(f"usage: {name} is no count")
    return Usage(**{name: count for name, count in counts.items() if _is_count(count)})


def _is_count(value: Json) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < _COUNT_MAX


def _seconds(value: Json) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise BrokenFrame("a time is out of range")
    return float(value)


def pack_span(record: SpanRecord) -> bytes:
    """A finished span."""
    return orjson.dumps(record)


def unpack_span(payload: bytes, trace: str) -> SpanRecord:
    """The inverse of `pack_span`, of bytes that may be anything.

    Args:
        payload: what arrived.
        trace: the run's `traceparent`: a span belongs to the same trace.

    Raises:
        BrokenFrame: they are no span, or one of another trace.
    """
    fields = json_object(payload)
    if fields.keys() != _SPAN_KEYS:
        raise BrokenFrame("this is no span")
    own = _text(fields, "trace", 64)
    if own.split("-")[1:2] != trace.split("-")[1:2] or own.count("-") != 3:
        raise BrokenFrame("a span of another trace")
    times = [fields["start_ns"], fields["end_ns"]]
    start_ns, end_ns = (each if type(each) is int and 0 <= each < 2**63 else 0 for each in times)
    return SpanRecord(
        name=_text(fields, "name", _NAME_MAX_CHARS),
        trace=own,
        parent_id=_text(fields, "parent_id", 16),
        start_ns=start_ns,
        end_ns=end_ns,
        attributes=_attributes(fields["attributes"]),
        error=_text(fields, "error", _NAME_MAX_CHARS),
    )


def _attributes(found: Json) -> tuple[tuple[str, AttributeValue], ...]:
    if not isinstance(found, list) or len(found) > _ATTRIBUTES_MAX:
        raise BrokenFrame("attributes of a span: not these")
    attributes: list[tuple[str, AttributeValue]] = []
    for each in found:
        if not isinstance(each, list) or len(each) != 2:
            raise BrokenFrame("an attribute has a name and a value")
        name, value = each
        if not isinstance(name, str) or not isinstance(value, str | int | float | bool):
            raise BrokenFrame("an attribute has a name and a plain value")
        attributes.append((name[:_NAME_MAX_CHARS], _short(value)))
    return tuple(attributes)


def _short(value: AttributeValue) -> AttributeValue:
    if isinstance(value, str):
        return value[:_NAME_MAX_CHARS]
    # Exporters know no larger integers.
    return float(value) if abs(value) >= 2**63 else value


def _text(fields: _JsonObject, name: str, limit_chars: int | None = None) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise BrokenFrame(f"{name} is no text")
    if limit_chars is not None and len(value) > limit_chars:
        raise BrokenFrame(f"{name} is too long")
    return value
