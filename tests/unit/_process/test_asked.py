"""What is asked, in a frame and out of it."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorychain._process.asked import (
    Asked,
    pack_asked,
    pack_problem,
    unpack_asked,
    unpack_problem,
)
from factorychain._process.messages import number
from factorychain._process.wire import REQUEST_BODY_MAX_BYTES, BrokenFrame
from factorychain.errors import AgentError, ChainDegraded, FactoryChainError, RunNotFound


@pytest.mark.parametrize("body", [b"", b"\x00\xff", b"{}"])
def test_what_is_packed_is_unpacked(body: bytes) -> None:
    asked = Asked("store", {"name": "state", "revision": 7, "none": None}, body)
    assert unpack_asked(pack_asked(9, asked)) == (9, asked)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        number(1),
        number(1) + number(2),
        number(1) + number(2) + b"[]",
        number(1) + number(2) + b"{}",
        number(1) + number(2**32 - 1) + b"{}",
        number(1) + number(10) + b'{"call":1}',
        number(1) + number(12) + b'{"call":"c"}' + bytes(REQUEST_BODY_MAX_BYTES + 1),
    ],
)
def test_what_is_no_request_breaks_the_frame(payload: bytes) -> None:
    with pytest.raises(BrokenFrame):
        unpack_asked(payload)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_broken_frame(payload: bytes) -> None:
    try:
        _, asked = unpack_asked(payload)
    except BrokenFrame:
        return
    assert isinstance(asked.call, str)


@pytest.mark.parametrize("value", [None, 1, True, ["x"], "12345"])
def test_text_is_text_within_its_length(value: object) -> None:
    asked = Asked("call", orjson.loads(orjson.dumps({"it": value})))
    with pytest.raises(BrokenFrame):
        asked.text("it", 4)


@pytest.mark.parametrize(("value", "found"), [(-5, 1), (3, 3), (2**60, 10)])
def test_integers_are_brought_into_their_range(value: int, found: int) -> None:
    assert Asked("call", {"it": value}).integer("it", 1, 10) == found


@pytest.mark.parametrize("value", [None, True, 1.5, "1"])
def test_what_is_no_integer_breaks_the_frame(value: bool | float | str | None) -> None:
    with pytest.raises(BrokenFrame):
        Asked("call", {"it": value}).integer("it", 1, 10)


@pytest.mark.parametrize("value", [None, True, -1, "1", float("nan")])
def test_what_is_no_time_breaks_the_frame(value: bool | float | str | None) -> None:
    with pytest.raises(BrokenFrame):
        Asked("call", {"it": value}).seconds("it", 10)


def test_times_are_brought_below_their_limit() -> None:
    asked = Asked("call", {"short": 2, "long": 1e300})
    assert (asked.seconds("short", 10), asked.seconds("long", 10)) == (2.0, 10.0)


@pytest.mark.parametrize(
    "error",
    [
        RunNotFound("no such run"),
        AgentError("out of paper", reason="PAPER", retryable=True, retry_after_s=2.5),
        ChainDegraded("engine"),
        FactoryChainError("of another version", reason="NEW_REASON"),
    ],
)
def test_an_error_is_the_same_on_the_other_side(error: FactoryChainError) -> None:
    found = unpack_problem(pack_problem(error))
    assert type(found) is type(error)
    assert found.__dict__ == error.__dict__
