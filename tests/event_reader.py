"""The way back from the JSON that clients see: what cannot be read back was not written.

A field of the wrong type is a ValueError.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar, cast

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from factorychain._core.event_json import Json, _enum, _holds_json, _key
from factorychain._core.event_kinds import KINDS
from factorychain.types.v1.event_pb2 import Event

_M = TypeVar("_M", bound=Message)


def event_from_json(found: Mapping[str, Json]) -> Event:
    """The event of an object as `event_object` makes it; unknown fields are ignored."""
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
    """The message of an object as `message_object` makes it."""
    message = kind()
    _fill(message, found)
    return message


def timestamp(value: Json) -> Timestamp:
    """The moment of an RFC 3339 text."""
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
