"""What a user says, as Pydantic AI takes it: a text, or parts of several kinds."""

from __future__ import annotations

import orjson
from pydantic_ai.messages import (
    AudioUrl,
    BinaryContent,
    DocumentUrl,
    ImageUrl,
    UserContent,
    VideoUrl,
)

from factorychain.input import FilePart, ImagePart, Input, Part, TextPart

_SIGNATURES = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)


def user_prompt(given: Input) -> str | list[UserContent]:
    """The prompt for an input; one of data alone is told as JSON."""
    if all(isinstance(each, TextPart) for each in given.content):
        if given.has_data and not given.text:
            return orjson.dumps(given.data).decode()
        return given.text
    return [_content(each) for each in given.content]


def _content(part: Part) -> UserContent:
    if isinstance(part, TextPart):
        return part.text
    if part.data:
        return BinaryContent(part.data, media_type=part.media_type or _media_type(part))
    kind = ImageUrl if isinstance(part, ImagePart) else _url_of(part)
    return kind(part.url, media_type=part.media_type or None)


def _url_of(part: FilePart) -> type[AudioUrl | VideoUrl | DocumentUrl]:
    kinds: dict[str, type[AudioUrl | VideoUrl]] = {"audio": AudioUrl, "video": VideoUrl}
    return kinds.get(part.media_type.partition("/")[0], DocumentUrl)


def _media_type(part: ImagePart | FilePart) -> str:
    """Of data whose kind the client did not say."""
    if isinstance(part, FilePart):
        return "application/octet-stream"
    found = (kind for start, kind in _SIGNATURES if part.data.startswith(start))
    return next(found, "image/png")
