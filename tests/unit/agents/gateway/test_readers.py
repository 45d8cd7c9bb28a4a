"""Usage is read in every protocol, and nothing that a server sends breaks a reader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorychain_agents.gateway.readers import (
    ChatReader,
    Counted,
    MessagesReader,
    Reader,
    ResponsesReader,
    estimate,
)
from tests.vendor import Call, Received, Turn, VendorUsage
from tests.vendor import anthropic_messages as messages
from tests.vendor import openai_chat as chat
from tests.vendor import openai_responses as responses

_READERS = (ChatReader, ResponsesReader, MessagesReader)
_TURN = Turn(
    text=["Hel", "lo"],
    reasoning=["hm"],
    calls=[Call("search", {"query": "x"})],
    usage=VendorUsage(11, 7, 3, 2),
)
_ASKED = {"model": "m", "stream_options": {"include_usage": True}}
_REQUEST = Received("POST", "/", {}, _ASKED, 0.0)
_FORMS: dict[type[Reader], tuple[Any, Any, Counted]] = {
    ChatReader: (
        chat.whole(_TURN, _REQUEST, "reasoning_content"),
        chat.streamed(_TURN, _REQUEST, "reasoning_content"),
        Counted(11, 7, 3, 2),
    ),
    ResponsesReader: (
        responses.whole(_TURN, _REQUEST),
        responses.streamed(_TURN, _REQUEST),
        Counted(11, 7, 3, 2),
    ),
    MessagesReader: (
        messages.whole(_TURN, _REQUEST),
        messages.streamed(_TURN, _REQUEST),
        Counted(11, 7, 3),
    ),
}

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "choices",
                    "delta",
                    "usage",
                    "message",
                    "response",
                    "error",
                    "input_tokens",
                    "text",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
)
_KINDS = st.sampled_from(
    [
        "response.completed",
        "x.delta",
        "message_start",
        "message_delta",
        "content_block_delta",
        "error",
    ]
)


@pytest.mark.parametrize("made", _READERS)
def test_an_answer_at_once(made: type[Reader]) -> None:
    reader = made()
    reader.whole(_FORMS[made][0])
    assert reader.counted == _FORMS[made][2]
    assert (reader.model, reader.ended, reader.failed) == ("m", True, False)


@pytest.mark.parametrize("made", _READERS)
def test_an_answer_in_its_events(made: type[Reader]) -> None:
    reader = made()
    events = [each.data for each in _FORMS[made][1] if isinstance(each.data, dict)]
    for each in events:
        reader.event(each)
    assert reader.chars == len('Hellohm{"query": "x"}') + (6 if made is ChatReader else 0)
    assert reader.counted == _FORMS[made][2]
    assert (reader.model, reader.ended, reader.failed) == ("m", True, False)
    assert reader.finish


@pytest.mark.parametrize(
    ("made", "event"),
    [
        (ChatReader, {"error": {"message": "x"}}),
        (ResponsesReader, {"error": {"message": "x"}}),
        (ResponsesReader, {"type": "error", "message": "x"}),
        (ResponsesReader, {"type": "response.failed", "response": {"status": "failed"}}),
        (MessagesReader, {"type": "error", "error": {"type": "overloaded_error"}}),
    ],
)
def test_an_error_in_a_stream_is_seen(made: Callable[[], Reader], event: dict[str, Any]) -> None:
    reader = made()
    reader.event(event)
    assert reader.failed


@given(
    st.dictionaries(st.sampled_from(["choices", "usage", "delta", "error", "message"]), _json),
    _KINDS,
)
def test_nothing_that_a_server_sends_breaks_a_reader(body: dict[str, Any], kind: str) -> None:
    for made in _READERS:
        reader = made()
        reader.event(body)
        reader.event({**body, "type": kind, "response": body})
        reader.whole(body)
        counted = reader.counted or Counted()
        assert min(counted.input, counted.output, counted.cached, counted.reasoning) >= 0


def test_counts_that_cannot_be_are_none() -> None:
    reader = ChatReader()
    reader.whole(
        {"usage": {"prompt_tokens": -5, "completion_tokens": 10**30, "total_tokens": True}}
    )
    assert reader.counted == Counted(0, 0)


def test_an_estimate_leaves_images_out() -> None:
    text: list[Any] = [{"type": "text", "text": "x" * 400}]
    image: list[Any] = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4000}}
    ]
    source: list[Any] = [{"type": "image", "source": {"type": "base64", "data": "A" * 4000}}]
    alone = estimate({"messages": [{"role": "user", "content": text}]})
    assert 100 <= alone <= 110
    with_images = estimate({"messages": [{"role": "user", "content": text + image + source}]})
    assert with_images <= alone + 15
