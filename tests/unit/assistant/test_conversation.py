"""What the model is sent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorychain import FilePart, ImagePart, Input, PastRun, TextPart
from factorychain.builtin.assistant.conversation import (
    LEFT_OUT,
    Conversation,
    Message,
    TooLong,
    user_content,
)
from factorychain.builtin.assistant.tokens import tokens
from factorychain.history import RunState


def text(said: str) -> Input:
    return Input(said, (TextPart(said),))


def past(asked: str, answered: object = None, state: RunState = "completed") -> PastRun:
    return PastRun("r", "assistant", state, text(asked), answered)  # type: ignore[arg-type]


def conversation(
    *history: PastRun, asked: str = "now", window: int = 1000, beside: int = 0
) -> Conversation:
    return Conversation(
        "Be kind.", history, text(asked), window_tokens=window, beside_tokens=beside
    )


def said(messages: list[Message]) -> list[tuple[Any, Any]]:
    return [(each["role"], each["content"]) for each in messages]


def test_instructions_then_history_then_the_present_turn() -> None:
    found = conversation(past("one", "1"), past("two", {"n": 2}), past("three", state="failed"))
    assert said(found.fitted()) == [
        ("system", "Be kind."),
        ("user", "one"),
        ("assistant", "1"),
        ("user", "two"),
        ("assistant", '{"n":2}'),
        ("user", "three"),
        ("user", "now"),
    ]


def test_the_oldest_turns_are_left_out_whole() -> None:
    history = [past(f"question {at} " + "x" * 300, f"answer {at}") for at in range(9)]
    messages = conversation(*history, window=300).fitted()
    shown = [str(content) for _, content in said(messages)]
    assert tokens(messages) <= 300
    assert shown[0] == "Be kind."
    assert shown[1].startswith("question 7")
    assert shown[-3:] == [history[8].input.text, "answer 8", "now"]


def test_what_stands_beside_takes_room() -> None:
    history = [past("x" * 300, "answer")]
    assert len(conversation(*history, window=400).fitted()) == 4
    assert len(conversation(*history, window=400, beside=300).fitted()) == 2


def test_an_input_that_is_too_long_alone_says_so() -> None:
    with pytest.raises(TooLong):
        conversation(asked="x" * 10_000).fitted()


def test_calls_and_their_results_stay_together_and_the_oldest_results_go_first() -> None:
    found = conversation(past("before", "answer"), window=700)
    for number in range(4):
        found.answered("", [(f"call{number}", "search", "{}")])
        found.result(f"call{number}", str(number) * 550)
        found.results_end()
    messages = found.fitted()
    assert tokens(messages) <= 700
    results = [each for each in messages if each["role"] == "tool"]
    assert [each["tool_call_id"] for each in results] == [f"call{at}" for at in range(4)]
    assert results[0]["content"] == LEFT_OUT
    assert results[3]["content"] == "3" * 550


def test_one_long_result_is_cut() -> None:
    found = conversation(window=1000)
    found.answered("", [("call1", "search", "{}")])
    found.result("call1", "ü" * 20_000)
    shown = str(found.fitted()[-1]["content"])
    assert len(shown) < 1000
    assert "[cut:" in shown


def test_images_of_results_follow_all_results() -> None:
    found = conversation(window=10_000)
    found.answered("", [("call1", "draw", "{}"), ("call2", "search", "{}")])
    found.result("call1", "[1 image]", [ImagePart(data=b"\x89PNG", media_type="image/png")])
    found.result("call2", "text")
    found.results_end()
    assert [each["role"] for each in found.fitted()[-3:]] == ["tool", "tool", "user"]
    shown = found.fitted()[-1]["content"]
    assert isinstance(shown, list)
    assert shown[1] == {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64,iVBORw=="},
    }


def test_a_window_that_turns_out_smaller_leaves_more_out() -> None:
    found = conversation(*[past("x" * 300, "y" * 300) for _ in range(4)], window=100_000)
    whole = tokens(found.fitted())
    assert found.narrow()
    assert tokens(found.fitted()) <= whole * 0.6
    assert not conversation(asked="x" * 300, window=100_000).narrow()


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        (
            ImagePart(url="https://example.com/a.png"),
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        ),
        (
            ImagePart(data=b"\xff\xd8jpeg"),
            {
                "type": "image_url",
                "image_url": {
                    "url": "data:image/jpeg;base64,/9hqcGVn"
                },
            },
        ),
        (
            FilePart(data=b"%PDF", media_type="application/pdf"),
            {
                "type": "file",
                "file": {
                    "filename": "file.pdf",
                    "file_data": "data:application/pdf;base64,JVBERg==",
                },
            },
        ),
        (FilePart(data=b"a,b", media_type="text/csv"), {"type": "text", "text": "a,b"}),
        (FilePart(url="https://example.com/a"), {"type": "text", "text": "File: https://example.com/a"}),
    ],
)  # fmt: skip
def test_parts_as_the_protocol_has_them(part: ImagePart | FilePart, shown: object) -> None:
    assert user_content(Input("look", (TextPart("look"), part))) == [
        {"type": "text", "text": "look"},
        shown,
    ]


def test_data_beside_the_text_is_shown() -> None:
    given_data = Input("hi", (TextPart("hi"),), {"a": 1}, has_data=True)
    assert user_content(given_data) == [
        {"type": "text", "text": "hi"},
        {"type": "text", "text": 'Data: {"a":1}'},
    ]


@given(
    st.lists(st.tuples(st.text(max_size=200), st.text(max_size=200)), max_size=8),
    st.lists(st.lists(st.text(max_size=400), min_size=1, max_size=3), max_size=5),
    st.integers(150, 2000),
)
def test_what_is_sent_fits_and_is_well_formed(
    history: list[tuple[str, str]], steps: list[list[str]], window: int
) -> None:
    found = conversation(*[past(*each) for each in history], window=window)
    for at, results in enumerate(steps):
        found.answered("", [(f"{at}.{number}", "t", "{}") for number in range(len(results))])
        for number, result in enumerate(results):
            found.result(f"{at}.{number}", result)
        found.results_end()
    try:
        messages = found.fitted()
    except TooLong:
        return
    assert tokens(messages) <= window
    wanted: list[str] = []
    for each in messages:
        if each["role"] == "tool":
            assert each["tool_call_id"] == wanted.pop(0)
        else:
            assert not wanted
        calls = each.get("tool_calls") or []
        wanted = wanted or [call["id"] for call in calls]  # type: ignore[index,call-overload,union-attr,misc]
    assert not wanted
    assert messages[0]["role"] == "system"
