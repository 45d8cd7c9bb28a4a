"""The JSON that clients see, made from protobuf messages and back.

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
from typing import TypeVar, cast

import orjson
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from factorychain._core.event_kinds import KINDS
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


# --- to JSON ---------------------------------------------------------------------------------


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


# --- from JSON -------------------------------------------------------------------------------


def event_from_json(found: Mapping[str, Json]) -> Event:
    """The event of an object as `event_object` makes it.

    Unknown fields are ignored; an unknown type gives an event with nothing in its `oneof`.

    Raises:
        ValueError: A field has the wrong type.
    """
    event = Event()
    for name in ("seq", "run", "trace"):
        if name in found:
            _assign(event, name, found[name])
    if "at" in found:
        event.at.CopyFrom(timestamp(found["at"]))
    path = found.get("path", ())
    event.path.extend(str(part) for part in cast("Iterable[object]", path))
    kind = found.get("type")
    if isinstance(kind, str) and kind in KINDS:
        part = getattr(event, kind)
        part.SetInParent()
        _fill(part, _mapping(found.get("data", {}), "data"))
    return event


def message_from_json(found: Mapping[str, Json], kind: type[_M]) -> _M:
    """The message of an object as `message_object` makes it.

    Raises:
        ValueError: A field has the wrong type.
    """
    message = kind()
    _fill(message, found)
    return message


def timestamp(value: Json) -> Timestamp:
    """The moment of an RFC 3339 text.

    Raises:
        ValueError: It is not one.
    """
    if not isinstance(value, str):
        raise ValueError(f"a time must be RFC 3339 text, not {type(value).__name__}")
    moment = Timestamp()
    moment.FromJsonString(value)
    return moment


def _fill(message: Message, found: Mapping[str, Json]) -> None:
    for field in cast("Descriptor", message.DESCRIPTOR).fields:
        key = _key(field)
        if key not in found or (found[key] is None and not _holds_json(field)):
            continue
        if field.is_repeated:
            _extend(message, field, found[key])
        elif field.message_type is not None:
            _fill_message(getattr(message, field.name), found[key], key)
        else:
            _assign(message, field.name, _scalar(field, found[key]))


def _extend(message: Message, field: FieldDescriptor, values: Json) -> None:
    if not isinstance(values, list):
        raise ValueError(f"{field.name} must be a list")
    items = getattr(message, field.name)
    for value in values:
        if field.message_type is None:
            items.append(_scalar(field, value))
        else:
            _fill_message(items.add(), value, field.name)


def _fill_message(part: Message, value: Json, key: str) -> None:
    if isinstance(part, Timestamp):
        part.CopyFrom(timestamp(value))
        return
    part.SetInParent()
    _fill(part, _mapping(value, key))


def _scalar(field: FieldDescriptor, value: Json) -> object:
    if _holds_json(field):
        return orjson.dumps(value).decode()
    if field.enum_type is not None and isinstance(value, str):
        return _enum(field.enum_type).get(value, 0)
    return value


def _assign(message: Message, name: str, value: object) -> None:
    try:
        setattr(message, name, value)
    except TypeError as error:
        raise ValueError(f"{name} has the wrong type: {error}") from error


def _mapping(value: Json, key: str) -> Mapping[str, Json]:
    if not isinstance(value, dict):
        raise ValueError(f"{key} must be an object")
    return value
