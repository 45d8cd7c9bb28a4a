"""Deciding and quoting, without an index."""

from __future__ import annotations

from factorychain.builtin.researcher.answer import Quote, compose, decline, judge, quote
from factorychain.builtin.researcher.library import Passage, Section
from factorychain.builtin.researcher.question import understand

WEIGHTS = {"capital": 5.0, "france": 7.0, "open": 2.0, "file": 2.0, "quickest": 3.0}


def passage(*covers: str, score: float = 1.0, heading: str = "H", line: int = 1) -> Passage:
    return Passage("d.md", heading, line, "text", covers, score)


def known(*words: str) -> dict[str, bool]:
    return {word: word in words for word in WEIGHTS}


def test_a_passage_with_most_of_a_question_answers_it() -> None:
    verdict = judge(
        understand("How do I open a file?"),
        [passage("open", "file")],
        WEIGHTS,
        known("open", "file"),
    )
    assert verdict.answered
    assert verdict.missing == ()


def test_one_common_word_of_two_is_no_answer() -> None:
    question = understand("What is the capital of France?")
    verdict = judge(question, [passage("capital")], WEIGHTS, known("capital"))
    assert not verdict.answered
    assert verdict.unknown == ("france",)
    text = "".join(decline(question, verdict, [passage("capital")], "the documents"))
    assert text == (
        "The documents do not answer this: they say nothing about “france”. The nearest that I found "
        "is “H”, d.md, line 1, which is about something else."
    )


def test_two_of_three_words_are_shown_with_what_is_missing() -> None:
    question = understand("What is the quickest open file?")
    verdict = judge(question, [passage("open", "file")], WEIGHTS, known("open", "file"))
    assert verdict.answered
    assert verdict.unknown == ("quickest",)
    quotes = [Quote("d.md", "", 3, "a\n\nb")]
    text = "".join(compose(question, verdict, quotes, "the documents"))
    assert text == (
        "The documents say nothing about “quickest”; this is the closest that they have.\n\n"
        "From d.md, line 3:\n\n> a\n>\n> b\n\nSources: d.md:3"
    )


def test_weaker_passages_and_further_ones_of_a_section_are_left_out() -> None:
    passages = [
        passage("open", "file", score=1.5),
        passage("open", "file", score=1.4, line=9),
        passage("open", "file", score=1.3, heading="Other"),
        passage("open", score=0.5, heading="Weak"),
    ]
    verdict = judge(understand("open file"), passages, WEIGHTS, known("open", "file"))
    assert [each.heading for each in verdict.passages] == ["H", "Other"]


def test_nothing_found_is_no_answer() -> None:
    assert not judge(understand("open file"), [], WEIGHTS, known()).answered


def test_a_short_section_is_quoted_whole_with_its_blank_lines() -> None:
    section = Section("d.md", "H", 1, ((3, "one\ntwo"), (7, "three")))
    assert quote(section, passage(line=7), first=True) == Quote(
        "d.md", "H", 3, "one\ntwo\n\n\nthree"
    )


def test_of_a_long_section_the_passage_is_quoted_with_what_it_announces() -> None:
    rest = tuple((20 + 10 * n, f"New thing {n}. " + "x" * 600) for n in range(5))
    section = Section(
        "d.md", "H", 1, ((3, "Intro " + "y" * 900), (10, "As here:"), (12, "  code"), *rest)
    )
    found = quote(section, passage("zebra", line=10), first=True)
    assert found.text.startswith("As here:\n\n  code")
    assert "Intro" not in found.text
