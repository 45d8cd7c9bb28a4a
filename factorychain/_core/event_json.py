"""The JSON that clients see, made from protobuf messages.

The rules (protocol, "Events"): field names are kept; a field `x_json` appears as `x`, as plain JSON;
integers are JSON numbers; timestamps are RFC 3339 in UTC; enums are their short names in lower case;
fields without presence are always printed, absent ones with presence are left out, except `usage`,
which every ending prints. protobuf's own JSON mapping does none of this, and is ten times slower.

Invariant: the output is valid JSON whatever a `*_json` field holds. Text in one that is not JSON appears
as a string, so that a sender can harm neither the frame nor its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import TypeVar

import orjson
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from factorychain.types.v1.event_pb2 import Event, Usage

Json = object
"""What `orjson.loads` answers: dict, list, str, int, float, bool or None."""

_M = TypeVar("_M", bound=Message)
_Convert = Callable[..., object]

_TIMESTAMP = Timestamp.DESCRIPTOR.full_name
_USAGE = Usage.DESCRIPTOR.full_name
_JSON_SUFFIX = "_json"
# What an empty `*_json` field means where it is an object by its nature; elsewhere it means null.
_OBJECTS = frozenset({"metadata_json", "arguments_json", "schema_json", "input_schema_json"})
_NULL = orjson.Fragment(b"null")
# The moments that RFC 3339 can name.
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_S, _LAST_S = -62_135_596_800, 253_402_300_799
_EMPTY = orjson.Fragment(b"{}")


def event_object(event: Event, seq: int, run: str) -> dict[str, Json]:
    """The event as an object for `orjson.dumps`; `seq` and `run` come from the batch around it."""
    kind = event.WhichOneof("event") or ""
    found: dict[str, Json] = {
        "seq": seq,
        "run": run,
        "type": kind,
        "at": rfc3339(event.at),
        "data": message_object(getattr(event, kind)) if kind else {},
        "trace": event.trace,
    }
    if event.path:
        found["path"] = list(event.path)
    return found


def event_json(event: Event, seq: int, run: str) -> bytes:
    """The event as JSON text."""
    return orjson.dumps(event_object(event, seq, run))


def events_frame(
    thread: str, epoch: int, first_seq: int, run: str, events: Iterable[Event]
) -> bytes:
    """The `events` frame of consecutive events of one run, the first of them numbered `first_seq`."""
    objects = [event_object(event, seq, run) for seq, event in enumerate(events, first_seq)]
    return orjson.dumps({"op": "events", "thread": thread, "epoch": epoch, "events": objects})


def message_object(message: Message) -> dict[str, Json]:
    """Any of our messages (a run's record, a thread's, an event's data) for `orjson.dumps`."""
    found: dict[str, Json] = {}
    for name, key, convert, optional in _fields(message.DESCRIPTOR):
        if optional and not message.HasField(name):
            continue
        value = getattr(message, name)
        found[key] = value if convert is None else convert(value)
    return found


def rfc3339(at: Timestamp) -> str:
    """RFC 3339 in UTC with microseconds; a moment outside of the years 1 to 9999 is the nearest of them."""
    seconds = min(max(at.seconds, _FIRST_S), _LAST_S)
    return f"{_second(seconds)}.{at.nanos // 1000 % 1_000_000:06d}Z"


@lru_cache(maxsize=64)
def _second(unix_s: int) -> str:
    # Events come in order, so that most of them share the second of the one before.
    return (_EPOCH + timedelta(seconds=unix_s)).isoformat()[:19]


@cache  # One entry a message type.
def _fields(descriptor: Descriptor) -> tuple[tuple[str, str, _Convert | None, bool], ...]:
    """Name, JSON key, conversion (None: as it is) and whether absence leaves it out, of each field."""
    return tuple(
        (field.name, _key(field), _writer(field), field.has_presence and not _is_usage(field))
        for field in descriptor.fields
    )


def _key(field: FieldDescriptor) -> str:
    return field.name.removesuffix(_JSON_SUFFIX) if _holds_json(field) else field.name


def _holds_json(field: FieldDescriptor) -> bool:
    return field.name.endswith(_JSON_SUFFIX) and field.type == FieldDescriptor.TYPE_STRING


def _is_usage(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == _USAGE


def _writer(field: FieldDescriptor) -> _Convert | None:
    one = _write_one(field)
    if not field.is_repeated:
        return one
    return list if one is None else lambda values: [one(value) for value in values]


def _write_one(field: FieldDescriptor) -> _Convert | None:
    if _holds_json(field):
        return _object_or_empty if field.name in _OBJECTS else _any_json
    if field.message_type is not None:
        return rfc3339 if field.message_type.full_name == _TIMESTAMP else message_object
    if field.enum_type is not None:
        names = {number: short for short, number in _enum(field.enum_type).items()}
        return lambda number: names.get(number, number)
    return None


@cache  # One entry an enum.
def _enum(enum: EnumDescriptor) -> Mapping[str, int]:
    """The numbers by short name: INPUT_KIND_QUESTION of InputKind is `question`."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {value.name.removeprefix(prefix).lower(): value.number for value in enum.values}


def _any_json(text: str) -> Json:
    return _spliced(text) if text else _NULL


def _object_or_empty(text: str) -> Json:
    return _spliced(text) if text else _EMPTY


def _spliced(text: str) -> Json:
    # A fragment is written as it is, hence the check: it costs less than building the value again.
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return orjson.Fragment(text)
