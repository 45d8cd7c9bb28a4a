"""Reading inputs."""

from __future__ import annotations

import pytest

from factorychain.errors import InvalidField
from factorychain.input import FilePart, ImagePart, Input, TextPart, parse_input


def test_text_is_one_text_part() -> None:
    assert parse_input('{"text": "hi"}') == Input("hi", (TextPart("hi"),))


def test_text_parts_are_joined_and_others_kept_in_order() -> None:
    found = parse_input(
        """{"content": [
        {"type": "text", "text": "look"},
        {"type": "image", "url": "https://x/y.png", "media_type": "image/png"},
        {"type": "file", "data": "aGk=", "media_type": "text/plain"},
        {"type": "text", "text": "here"}]}"""
    )
    assert found.text == "look\nhere"
    assert found.content[1] == ImagePart(url="https://x/y.png", media_type="image/png")
    assert found.content[2] == FilePart(data=b"hi", media_type="text/plain")


def test_data_that_is_null_differs_from_none_given() -> None:
    assert parse_input('{"data": null}').has_data
    assert not parse_input('{"text": ""}').has_data


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("nonsense", "input"),
        ("[]", "input"),
        ("{}", "input"),
        ('{"text": 5}', "input.text"),
        ('{"text": "a", "content": []}', "input"),
        ('{"content": {}}', "input.content"),
        ('{"content": ["a"]}', "input.content[0]"),
        ('{"content": [{"type": "sound"}]}', "input.content[0].type"),
        ('{"content": [{"type": "text"}]}', "input.content[0].text"),
        ('{"content": [{"type": "image"}]}', "input.content[0]"),
        ('{"content": [{"type": "image", "url": "u", "data": "aGk="}]}', "input.content[0]"),
        ('{"content": [{"type": "file", "data": "!"}]}', "input.content[0].data"),
    ],
)
def test_a_bad_input_is_refused_with_the_field(text: str, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parse_input(text)
    assert caught.value.field == field
