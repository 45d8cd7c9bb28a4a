"""Any value of an agent's author as JSON text.

Invariant: the answer is valid JSON in valid UTF-8, whatever the value is made of, or `NotJson` says
what is in the way. Dataclasses, pydantic models, dates, enums, sets and bytes are understood.
"""

from __future__ import annotations

import re
from typing import Final

import orjson
from pydantic_core import PydanticSerializationError, to_json

from factorychain.input import Json

ERROR_TEXT_MAX_BYTES: Final = 8192

_REASON: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


class NotJson(ValueError):
    """The value has no JSON form."""


def dumps(value: object) -> str:
    """The value as JSON text.

    Raises:
        NotJson: something in it has no JSON form.
    """
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        pass
    try:
        return to_json(value, inf_nan_mode="null", bytes_mode="base64").decode()
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        return _without_surrogates(value, error)


def dumps_anything(value: object) -> str:
    """As `dumps`; what has no JSON form appears as its `repr`."""
    try:
        return dumps(value)
    except NotJson:
        pass
    try:
        return to_json(value, inf_nan_mode="null", bytes_mode="base64", fallback=_repr).decode()
    except (PydanticSerializationError, ValueError, RecursionError):
        return orjson.dumps(clean_text(_repr(value))).decode()


def _repr(value: object) -> str:
    """An author's `repr` may fail; that must not fail what is told of the value."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - whatever its code does
        return f"<{type(value).__name__}>"


def clean_text(text: str) -> str:
    """The text with what UTF-8 cannot say (lone surrogates) replaced by question marks."""
    return text.encode("utf-8", "replace").decode()


def error_text(text: str) -> str:
    """The text of an error as users see it: valid, and never so long that its event would be refused."""
    return clean_text(cut_text(text, ERROR_TEXT_MAX_BYTES))


def error_reason(reason: str, otherwise: str) -> str:
    """The reason of an error if it has the form that every layer takes."""
    return reason if _REASON.fullmatch(reason) else otherwise


def cut_text(text: str, limit_bytes: int) -> str:
    """The longest beginning of the text that fits, never half a character."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit_bytes:
        return text
    return encoded[:limit_bytes].decode("utf-8", "ignore")


def cut_json(text: str, limit_bytes: int) -> tuple[str, bool]:
    """JSON text that fits, and whether it was cut: cut JSON appears as a string of its beginning."""
    if len(text) * 4 <= limit_bytes or len(text.encode()) <= limit_bytes:
        return text, False
    found: Json = orjson.loads(text)
    shown = found if isinstance(found, str) else text
    # Escapes at worst make six characters of one; halve until the quoted form fits.
    room = limit_bytes
    while True:
        quoted = orjson.dumps(cut_text(shown, room))
        if len(quoted) <= limit_bytes or room <= 1:
            return quoted.decode(), True
        room //= 2


def _without_surrogates(value: object, error: Exception) -> str:
    try:
        return to_json(_cleaned(value), inf_nan_mode="null", bytes_mode="base64").decode()
    except (PydanticSerializationError, ValueError, RecursionError):
        raise NotJson(clean_text(str(error))) from error


def _cleaned(value: object) -> object:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(each) for each in value]
    return value
