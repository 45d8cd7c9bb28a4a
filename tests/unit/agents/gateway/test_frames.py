"""Events are cut out of a stream as they were put in, wherever the network cuts it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorychain_agents.gateway.frames import Frames, FrameTooLong, data_of

_STREAM = (
    b'data: {"a": 1}\n\n: a comment\n\nevent: x\r\ndata: {"b":\r\ndata: 2}\r\n\r\ndata:[DONE]\n\n'
)


@given(st.lists(st.integers(1, len(_STREAM) - 1)))
def test_however_it_is_cut_the_same_events_come_out(cuts: list[int]) -> None:
    frames, found = Frames(1000), []
    places = [0, *sorted(cuts), len(_STREAM)]
    for begin, end in itertools.pairwise(places):
        found += frames.feed(_STREAM[begin:end])
    assert b"".join(found) == _STREAM
    assert frames.rest == b""
    assert [data_of(each) for each in found] == [b'{"a": 1}', b"", b'{"b":\n2}', b"[DONE]"]


def test_what_is_not_whole_stays() -> None:
    frames = Frames(1000)
    assert frames.feed(b"data: 1\n\ndata: 2\n") == [b"data: 1\n\n"]
    assert frames.rest == b"data: 2\n"


def test_an_event_without_an_end_is_an_error() -> None:
    frames = Frames(10)
    assert frames.feed(b"data: 1234") == []
    with pytest.raises(FrameTooLong):
        frames.feed(b"5")
