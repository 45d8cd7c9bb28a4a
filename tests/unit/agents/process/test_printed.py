"""What run processes print."""

from __future__ import annotations

import pytest

from factorychain_agents.process.printed import PrintedLines

Shown = list[tuple[str, str, str]]


@pytest.fixture
def shown() -> Shown:
    return []


@pytest.fixture
def lines(shown: Shown) -> PrintedLines:
    return PrintedLines("r1", lambda *what: shown.append(what))


def test_a_line_is_shown_when_it_ends_whatever_pieces_it_comes_in(
    lines: PrintedLines, shown: Shown
) -> None:
    for piece in ("on", "e\ntw", "o\nthree\nfo"):
        lines.add(b"\x01" + piece.encode())
    assert shown == [("r1", "stdout", "one"), ("r1", "stdout", "two\nthree")]
    lines.finish("")
    assert shown[-1] == ("r1", "stdout", "fo")


def test_the_streams_are_told_apart(lines: PrintedLines, shown: Shown) -> None:
    lines.add(b"\x01out ")
    lines.add(b"\x02err\n")
    lines.add(b"\x01put\n")
    assert shown == [("r1", "stderr", "err"), ("r1", "stdout", "out put")]


def test_half_a_character_waits_for_its_other_half_and_no_text_is_shown_as_far_as_it_is(
    lines: PrintedLines, shown: Shown
) -> None:
    lines.add(b"\x01\xc3")
    lines.add(b"\x01\xa4\n")
    lines.add(b"\x01\xff\n")
    assert [text for _, _, text in shown] == ["ä", "\ufffd"]


def test_a_line_without_end_does_not_fill_the_memory(lines: PrintedLines, shown: Shown) -> None:
    for _ in range(20):
        lines.add(b"\x01" + b"x" * 1000)
    assert len(shown) == 1


def test_a_stream_that_is_none_counts_as_stderr(lines: PrintedLines, shown: Shown) -> None:
    lines.add(b"\x09odd\n")
    lines.add(b"")
    assert shown == [("r1", "stderr", "odd")]


def test_last_words_past_python_are_shown(lines: PrintedLines, shown: Shown) -> None:
    lines.finish("Fatal error\n")
    assert shown == [("r1", "stderr", "Fatal error")]
