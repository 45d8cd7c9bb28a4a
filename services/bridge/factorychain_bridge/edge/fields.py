"""The fields of a frame, by type. Each raises `InvalidField` with the name of what is wrong.

`null` is the same as absence.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from factorychain._core.ids import parse_thread_id
from factorychain.errors import InvalidField

_INT_MAX = 2**63 - 1

Frame = Mapping[str, object]


def text(frame: Frame, key: str, inside: str = "") -> str:
    """A string; empty where it is absent."""
    value = frame.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidField(f"{inside}.{key}" if inside else key, "must be a string")
    return value


def required(frame: Frame, key: str) -> str:
    """A string that must be there."""
    value = text(frame, key)
    if not value:
        raise InvalidField(key, "is required, a string")
    return value


def thread(frame: Frame, *, optional: bool = False) -> str:
    """A thread id; empty where it may be absent and is."""
    value = text(frame, "thread") if optional else required(frame, "thread")
    return parse_thread_id(value) if value else ""


def integer(frame: Frame, key: str, most: int = _INT_MAX) -> int:
    """An integer that is not negative; 0 where it is absent."""
    value = frame.get(key)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise InvalidField(key, f"must be an integer from 0 to {most}")
    return value


def page_size(frame: Frame) -> int:
    """How many items a page may have; 0 where it is absent."""
    return integer(frame, "page_size", 1000)


def items(frame: Frame, key: str) -> list[object]:
    """A list; empty where it is absent."""
    value = frame.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidField(key, "must be a list")
    return value


def json_object(frame: Frame, key: str, *, optional: bool = True) -> str:
    """An object as JSON text; empty where it may be absent and is."""
    value = frame.get(key)
    if value is None and optional:
        return ""
    if not isinstance(value, dict):
        raise InvalidField(key, "is required, an object" if value is None else "must be an object")
    return dumped(key, value)


def dumped(key: str, value: object) -> str:
    """Any value as JSON text."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        # It reads deeper nesting than it writes.
        raise InvalidField(key, "is nested too deeply, at most 254 levels") from None
