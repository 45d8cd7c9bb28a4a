"""Any value as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from factorychain._instance.values import NotJson, cut_json, cut_text, dumps, dumps_anything


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    seen: date


class Model(BaseModel):
    points: list[Point]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (float("nan"), None),
        (Colour.RED, "red"),
        ({1: "a"}, {"1": "a"}),
        ((1, {2}), [1, [2]]),
        (Point(1, date(2026, 1, 2)), {"x": 1, "seen": "2026-01-02"}),
        (Model(points=[Point(1, date(2026, 1, 2))]), {"points": [{"x": 1, "seen": "2026-01-02"}]}),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (b"\xff", "_w=="),
        ("a\ud800b", "a?b"),
        ({"k\ud800": ["\udfff"]}, {"k?": ["?"]}),
        (2**70, 2**70),
    ],
)
def test_what_authors_return_has_a_json_form(value: object, expected: object) -> None:
    assert json.loads(dumps(value)) == expected


def test_what_has_no_json_form_says_so_or_shows_its_repr() -> None:
    value = {"a": object}
    with pytest.raises(NotJson):
        dumps(value)
    assert orjson.loads(dumps_anything(value)) == {"a": "<class 'object'>"}


def test_a_value_that_contains_itself_is_not_json() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(NotJson):
        dumps(value)
    assert dumps_anything(value)


@given(st.text(), st.integers(min_value=0, max_value=40))
def test_cut_text_is_a_beginning_that_fits(text: str, limit: int) -> None:
    clean = text.encode("utf-8", "replace").decode()
    cut = cut_text(text, limit)
    assert len(cut.encode("utf-8", "replace")) <= limit or cut == text
    assert clean.startswith(cut) or text.startswith(cut)


@given(st.recursive(st.text() | st.integers() | st.none(), st.lists), st.integers(16, 200))
def test_cut_json_is_valid_and_fits(value: object, limit: int) -> None:
    text = dumps(value)
    cut, truncated = cut_json(text, limit)
    orjson.loads(cut)
    assert len(cut.encode()) <= limit
    assert truncated == (cut != text)
