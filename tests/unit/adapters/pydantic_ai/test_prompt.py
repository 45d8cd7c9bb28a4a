"""A user's input as a prompt."""

from __future__ import annotations

from pydantic_ai.messages import AudioUrl, BinaryContent, DocumentUrl, ImageUrl, VideoUrl

from factorychain import FilePart, ImagePart, Input, TextPart
from factorychain.adapters.pydantic_ai.prompt import user_prompt
from factorychain.input import input_from


def test_text_is_a_text() -> None:
    assert user_prompt(input_from({"text": "hello"})) == "hello"


def test_data_alone_is_told_as_json() -> None:
    assert user_prompt(input_from({"data": {"city": "Turin"}})) == '{"city":"Turin"}'


def test_data_beside_a_text_is_left_to_the_agent() -> None:
    assert user_prompt(input_from({"text": "hello", "data": [1]})) == "hello"


def test_parts_keep_their_order_and_kind() -> None:
    given = Input(
        "what is this?",
        (
            ImagePart(url="https://example.org/a.png"),
            TextPart("what is this?"),
            FilePart(url="https://example.org/a", media_type="audio/mpeg"),
            FilePart(url="https://example.org/b", media_type="video/mp4"),
            FilePart(url="https://example.org/c", media_type="application/pdf"),
        ),
    )
    assert user_prompt(given) == [
        ImageUrl("https://example.org/a.png"),
        "what is this?",
        AudioUrl("https://example.org/a", media_type="audio/mpeg"),
        VideoUrl("https://example.org/b", media_type="video/mp4"),
        DocumentUrl("https://example.org/c", media_type="application/pdf"),
    ]


def test_data_of_an_unnamed_kind_is_recognised() -> None:
    found = user_prompt(Input("", (ImagePart(data=b"\xff\xd8\xff\xe0rest"), FilePart(data=b"x"))))
    assert found == [
        BinaryContent(b"\xff\xd8\xff\xe0rest", media_type="image/jpeg"),
        BinaryContent(b"x", media_type="application/octet-stream"),
    ]
