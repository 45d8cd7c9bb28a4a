"""What a user gives an agent: text, or parts of several kinds, with data beside them.

The JSON is `{"text": …}` or `{"content": [{"type": "text" | "image" | "file", "text" | "url" | "data",
"media_type"}]}`, and may carry `data` (any JSON).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TypeAlias

import orjson

from factorychain.errors import InvalidField

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
"""What JSON can say."""


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of text."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image, by address or by value; one of `url` and `data` is set."""

    url: str = ""
    data: bytes = b""
    media_type: str = ""
    """Such as `image/png`; empty if the client did not say."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file, by address or by value; one of `url` and `data` is set."""

    url: str = ""
    data: bytes = b""
    media_type: str = ""
    """Such as `application/pdf`; empty if the client did not say."""


Part: TypeAlias = TextPart | ImagePart | FilePart


@dataclass(frozen=True, slots=True)
class Input:
    """One turn of the user."""

    text: str = ""
    """All text of it; of several text parts, joined by line ends."""
    content: tuple[Part, ...] = ()
    """Its parts; a plain text is one text part."""
    data: Json = None
    """What the client passed along as JSON, for a form or an application."""
    has_data: bool = False
    """Whether `data` was given, since null may be given too."""


def parse_input(text: str, field: str = "input") -> Input:
    """Read the JSON of an input.

    Raises:
        InvalidField: it is not JSON or not of the form above; names the field inside.
    """
    try:
        found: Json = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidField(field, "is not JSON") from error
    return input_from(found, field)


def input_from(found: Json, field: str = "input") -> Input:
    """As `parse_input`, from JSON that is read already."""
    if not isinstance(found, dict):
        raise InvalidField(field, 'must be an object such as {"text": "…"}')
    if "text" in found and "content" in found:
        raise InvalidField(field, "has both text and content; give one of them")
    content = _content(found, field)
    texts = [part.text for part in content if isinstance(part, TextPart)]
    return Input("\n".join(texts), content, found.get("data"), "data" in found)


def encode_input(given: Input) -> str:
    """The JSON of an input, from which `parse_input` makes the same."""
    whole: dict[str, Json] = {"content": [_encoded(each) for each in given.content]}
    if not given.content:
        whole = {} if given.has_data else {"text": given.text}
    return orjson.dumps(whole | ({"data": given.data} if given.has_data else {})).decode()


def _encoded(part: Part) -> Json:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    kind = "image" if isinstance(part, ImagePart) else "file"
    encoded: dict[str, Json] = {"type": kind}
    if part.url:
        encoded["url"] = part.url
    else:
        encoded["data"] = base64.b64encode(part.data).decode()
    if part.media_type:
        encoded["media_type"] = part.media_type
    return encoded


def _content(found: dict[str, Json], field: str) -> tuple[Part, ...]:
    if "text" in found:
        text = found["text"]
        if not isinstance(text, str):
            raise InvalidField(f"{field}.text", "must be a string")
        return (TextPart(text),)
    if "content" in found:
        parts = found["content"]
        if not isinstance(parts, list):
            raise InvalidField(f"{field}.content", "must be a list of parts")
        return tuple(_part(part, f"{field}.content[{at}]") for at, part in enumerate(parts))
    if "data" in found:
        return ()
    raise InvalidField(field, "needs text, content or data")


def _part(part: Json, field: str) -> Part:
    if not isinstance(part, dict):
        raise InvalidField(field, 'must be an object such as {"type": "text", "text": "…"}')
    kind = part.get("type")
    if kind == "text":
        return TextPart(_string(part, "text", field, needed=True))
    if kind not in ("image", "file"):
        raise InvalidField(f"{field}.type", "must be text, image or file")
    url = _string(part, "url", field)
    data = _bytes(_string(part, "data", field), field)
    if bool(url) == bool(data):
        raise InvalidField(field, "needs one of url and data")
    media_type = _string(part, "media_type", field)
    return (ImagePart if kind == "image" else FilePart)(url, data, media_type)


def _string(part: dict[str, Json], key: str, field: str, *, needed: bool = False) -> str:
    value = part.get(key, None if needed else "")
    if not isinstance(value, str):
        raise InvalidField(f"{field}.{key}", "must be a string")
    return value


def _bytes(text: str, field: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidField(f"{field}.data", "must be base64") from error
