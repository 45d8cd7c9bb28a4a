"""Answers against their schemas, whatever both are."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest

from factorychain._core.answer_schema import (
    SCHEMA_MAX_BYTES,
    BadSchema,
    check_schema,
    problem_of,
)


def dumped(value: Any) -> str:
    return orjson.dumps(value).decode()


TRIP = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "pattern": "^[A-Z]"},
        "days": {"type": "integer", "minimum": 1},
    },
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "value", "problem"),
    [
        (TRIP, {"city": "Turin", "days": 2}, ""),
        (TRIP, {"city": "Turin", "days": 0}, "days: 0 is less than the minimum of 1"),
        (TRIP, {"city": "turin"}, "city: 'turin' does not match '^[A-Z]'"),
        (TRIP, {"days": 1}, "'city' is a required property"),
        (TRIP, {"city": "Turin", "other": 1}, "Additional properties are not allowed"),
        ({"type": "boolean"}, True, ""),
        ({"type": "boolean"}, 1, "1 is not of type 'boolean'"),
        ({"enum": ["a", "b"]}, "c", "'c' is not one of ['a', 'b']"),
        ({"type": "array", "uniqueItems": True}, [1, 2, 1], "has the same item twice"),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "null"}}}, None, ""),
        ({}, {"anything": [1]}, ""),
    ],
)
def test_an_answer_fits_or_it_is_said_what_does_not(
    schema: dict[str, Any], value: object, problem: str
) -> None:
    check_schema(dumped(schema))
    found = problem_of(dumped(schema), dumped(value))
    assert problem in found
    assert bool(found) == bool(problem)


def test_without_a_schema_anything_that_is_json_fits() -> None:
    check_schema("")
    assert problem_of("", "[1]") == ""
    assert problem_of("", "no json") == "must be JSON"


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ("[1]", "JSON object"),
        ("{", "not JSON"),
        (dumped({"type": "number of days"}), "type"),
        (dumped({"pattern": "(?=a)b"}), "looks around"),
        (dumped({"properties": {"a": {"pattern": "["}}}), "pattern"),
        (dumped({"$ref": "https://acme.example/schema"}), "elsewhere"),
        (dumped({"patternProperties": {"^a": {}}}), "patternProperties"),
        (dumped({"unevaluatedProperties": False}), "unevaluatedProperties"),
        (dumped({"description": "x" * SCHEMA_MAX_BYTES}), str(SCHEMA_MAX_BYTES)),
        ('{"not":' * 3000 + "{}" + "}" * 3000, "16384"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_with_the_reason(schema: str, says: str) -> None:
    with pytest.raises(BadSchema, match=says):
        check_schema(schema)


BOMB = {
    "$defs": {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(60)}
    | {"a60": {"type": "string"}},
    "$ref": "#/$defs/a0",
}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (BOMB, "x"),
        ({"$ref": "#"}, "x"),
        ({"items": {"anyOf": [{"const": n} for n in range(900)]}}, [950] * 5000),
        ({"pattern": "^(a+)+$"}, "a" * 50_000 + "b"),
        ({"uniqueItems": True}, [[n] for n in range(5000)] * 2),
    ],
)
def test_no_schema_takes_long_to_check(schema: dict[str, Any], value: object) -> None:
    check_schema(dumped(schema))
    began = time.process_time()
    assert problem_of(dumped(schema), dumped(value)) != ""
    assert time.process_time() - began < 2
