"""What questions are about."""

from __future__ import annotations

import pytest

from factorychain.builtin.researcher.question import points_back, understand


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("How do I open a file?", ("open", "file")),
        ("How does a with statement work?", ("with", "statement")),
        ("What does the in operator do?", ("in", "operator")),
        ("What is the difference between is and ==?", ("is", "==")),
        ("What does := do?", (":=",)),
        ("What does `for` mean?", ("for",)),
        ("When is __del__ called?", ("__del__",)),
        ("How do decorators work?", ("decorators",)),
        ("Can I use sys.exc_info()?", ("sys.exc_info",)),
        ("Hello!", ()),
        ("", ()),
        ("?!", ()),
    ],
)
def test_terms_are_what_is_asked_about(text: str, terms: tuple[str, ...]) -> None:
    assert understand(text).terms == terms


def test_neighbours_are_phrases_if_one_of_them_is_a_term() -> None:
    assert "with statement" in understand("How does a with statement work?").phrases
    assert "the with" not in understand("the with statement").phrases


def test_a_follow_up_is_about_what_was_asked_before() -> None:
    found = understand("and how do I close it?", ["How do I open a file?"])
    assert found.terms == ("close",)
    assert found.earlier == ("open", "file")
    assert found.query == "close open file"


def test_a_follow_up_to_a_follow_up_reaches_further_back() -> None:
    history = ["How do I open a file?", "and how do I close it?"]
    assert set(understand("why is that?", history).earlier) == {"close", "open", "file"}


def test_a_question_that_stands_alone_is_not_mixed_with_earlier_ones() -> None:
    assert understand("What is a lambda?", ["How do I open a file?"]).earlier == ()


@pytest.mark.parametrize(
    ("text", "back"),
    [
        ("and how do I close it?", True),
        ("What about lists?", True),
        ("why?", True),
        ("Is it fast?", True),
        ("What is a lambda?", False),
        ("How do I open a file?", False),
        ("", False),
    ],
)
def test_only_questions_that_point_back_need_the_conversation(text: str, back: bool) -> None:
    assert points_back(text) is back
