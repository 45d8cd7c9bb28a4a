"""Arguments against a schema from elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from factorychain._instance.signature import BadArguments
from factorychain._mcp.arguments import SchemaSignature

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"$ref": "#/$defs/word"}},
    "required": ["a"],
    "additionalProperties": False,
    "$defs": {"word": {"type": "string", "maxLength": 3}},
}


def signature(schema: dict[str, Any] = SCHEMA) -> SchemaSignature:
    return SchemaSignature("t", schema)


def test_arguments_that_fit_are_as_they_were() -> None:
    assert signature().validated_json('{"a": 1, "b": "abc"}') == {"a": 1, "b": "abc"}
    assert signature({"type": "object"}).validated_json("") == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": "one"}', "a: 'one' is not of type 'integer'"),
        ('{"b": "abc"}', "'a' is a required property"),
        ('{"a": 1, "b": "abcd"}', "b: 'abcd' is too long"),
        ('{"a": 1, "c": 2}', "Additional properties are not allowed"),
        ("[1]", "must be a JSON object"),
        ('{"a"', "Invalid JSON"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(text: str, says: str) -> None:
    with pytest.raises(BadArguments) as caught:
        signature().validated_json(text)
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"properties": 5},
        {"properties": {"a": {"$ref": "#/nowhere"}}},
        {"properties": {"a": {"$ref": "http://127.0.0.1:1/schema"}}},
        {"properties": {"a": {"pattern": "("}}},
        {"$ref": "#"},
    ],
)
def test_a_schema_that_is_not_understood_is_left_to_the_server(schema: dict[str, Any]) -> None:
    assert signature(schema).validated({"a": "x"}) == {"a": "x"}


def test_arguments_have_no_order() -> None:
    assert signature().named((), {"a": 1}) == {"a": 1}
    with pytest.raises(BadArguments, match="by name"):
        signature().named((1,), {})
