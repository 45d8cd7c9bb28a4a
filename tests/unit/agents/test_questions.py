"""Questions of one run: one answer each."""

from __future__ import annotations

import pytest

from factorychain.errors import (
    EventRejected,
    InvalidField,
    RequestAnswered,
    RequestClosed,
    RequestNotFound,
)
from factorychain_agents.questions import EXPIRED, OPEN_MAX, Questions


def test_an_answer_counts_once_and_the_same_again_is_known() -> None:
    questions = Questions()
    questions.ask("q1", '{"type":"object"}')
    assert questions.schema_of("q1", "1") == '{"type":"object"}'
    assert questions.answer("q1", '{"a":1,"b":2}')
    assert questions.open == []
    assert not questions.answer("q1", '{"b": 2, "a": 1}')
    with pytest.raises(RequestAnswered):
        questions.answer("q1", '{"a":1}')


def test_one_and_true_are_two_answers() -> None:
    questions = Questions()
    questions.ask("q1", "")
    assert questions.answer("q1", "1")
    with pytest.raises(RequestAnswered):
        questions.answer("q1", "true")


def test_an_unknown_request_is_told_which_are_open() -> None:
    questions = Questions()
    questions.ask("q1", "")
    questions.ask("q2", "")
    with pytest.raises(RequestNotFound, match="open are: q1, q2") as caught:
        questions.answer("q3", "1")
    assert caught.value.names == ("q1", "q2")


def test_a_closed_one_takes_no_answer_and_is_closed_once() -> None:
    questions = Questions()
    questions.ask("q1", "")
    assert questions.close("q1", EXPIRED)
    assert not questions.close("q1", EXPIRED)
    with pytest.raises(RequestClosed, match="its time is over"):
        questions.answer("q1", "1")


def test_an_id_is_used_once_and_only_so_many_are_open() -> None:
    questions = Questions()
    questions.ask("q0", "")
    with pytest.raises(InvalidField):
        questions.ask("q0", "")
    for number in range(1, OPEN_MAX):
        questions.ask(f"q{number}", "")
    with pytest.raises(EventRejected, match="16 of them at once"):
        questions.ask("more", "")
    assert questions.answer("q0", "1")
    questions.ask("more", "")
