"""Frames."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorychain._process.wire import (
    EVENT_MAX_BYTES,
    BrokenFrame,
    Decoder,
    FromInstance,
    ToInstance,
    frame,
)

SAYABLE = [FromInstance.EVENT, FromInstance.SPAN, FromInstance.OUTPUT, FromInstance.OUTCOME]


@given(
    frames=st.lists(st.tuples(st.sampled_from(SAYABLE), st.binary(max_size=300)), max_size=20),
    cuts=st.lists(st.integers(1, 50), min_size=1),
)
def test_frames_come_out_as_they_went_in_whatever_pieces_they_come_in(
    frames: list[tuple[FromInstance, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(frame(kind, payload) for kind, payload in frames)
    decoder = Decoder(FromInstance)
    found: list[tuple[int, bytes]] = []
    at = turn = 0
    while at < len(stream):
        step = cuts[turn % len(cuts)]
        decoder.feed(stream[at : at + step])
        found += decoder.frames()
        at, turn = at + step, turn + 1
    assert found == frames
    assert decoder.waiting_bytes == 0


def test_a_length_that_is_not_allowed_is_refused_before_its_bytes_come() -> None:
    decoder = Decoder(FromInstance)
    decoder.feed(struct.pack("!IB", EVENT_MAX_BYTES + 5, FromInstance.EVENT))
    with pytest.raises(BrokenFrame, match="at most"):
        list(decoder.frames())


@pytest.mark.parametrize("kind", [0, 255, ToInstance.START])
def test_a_kind_of_the_other_direction_or_of_none_is_refused(kind: int) -> None:
    decoder = Decoder(FromInstance)
    decoder.feed(struct.pack("!IB", 0, kind))
    with pytest.raises(BrokenFrame, match="kind"):
        list(decoder.frames())


def test_what_came_before_a_broken_frame_is_heard() -> None:
    decoder = Decoder(FromInstance)
    decoder.feed(frame(FromInstance.BEAT) + b"\xff" * 5)
    found: list[tuple[int, bytes]] = []
    with pytest.raises(BrokenFrame):
        found.extend(decoder.frames())
    assert found == [(FromInstance.BEAT, b"")]


def test_a_frame_that_nobody_would_take_is_not_made() -> None:
    with pytest.raises(BrokenFrame):
        frame(FromInstance.EVENT, bytes(EVENT_MAX_BYTES + 5))
    with pytest.raises(BrokenFrame):
        frame(ToInstance.CANCEL, b"x")
