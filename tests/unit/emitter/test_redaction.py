"""Secrets leave neither whole nor in pieces, and prose is not touched."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factorychain_emitter.patterns import PATTERNS
from factorychain_emitter.redaction import MASK, Scanner, TextStream
from tests.unit.emitter.secret_samples import PROSE, SAMPLES, Sample

SCANNER = Scanner()
samples = st.sampled_from(SAMPLES)
words = st.text(alphabet="abcdefghij ,.\n", max_size=30)


def streamed(pieces: list[str], scanner: Scanner = SCANNER) -> list[str]:
    """What leaves after each piece, and at the end."""
    stream = TextStream(scanner)
    left = [stream.feed(piece) for piece in pieces]
    return [*(each for each in left if each is not None), stream.finish()]


def cut(text: str, places: list[int]) -> list[str]:
    bounds = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in itertools.pairwise(bounds)]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: f"{sample.kind}-{sample.text[:12]}")
def test_the_body_of_each_kind_is_taken_out_and_counted(sample: Sample) -> None:
    text, names = SCANNER.redact(f"before {sample.text} after")
    assert sample.body not in text
    assert MASK in text
    assert text.startswith("before ")
    assert text.endswith(" after")
    assert names == [sample.kind]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: f"{sample.kind}-{sample.text[:12]}")
def test_a_secret_split_at_any_byte_is_taken_out_as_if_it_were_whole(sample: Sample) -> None:
    text = f"It is {sample.text}, he said."
    whole, names = SCANNER.redact(text)
    for place in range(len(text) + 1):
        stream = TextStream(SCANNER)
        left = [stream.feed(text[:place]) or "", stream.feed(text[place:]) or "", stream.finish()]
        assert "".join(left) == whole, f"split at {place}"
        assert stream.redacted == names


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: f"{sample.kind}-{sample.text[:12]}")
def test_a_secret_that_comes_character_by_character_is_taken_out(sample: Sample) -> None:
    text = f"It is {sample.text}, he said."
    assert "".join(streamed(list(text))) == SCANNER.redact(text)[0]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(words, samples), min_size=1, max_size=4),
    words,
    st.lists(st.integers(0, 5_000), max_size=12),
)
def test_pieces_joined_equal_the_whole(
    parts: list[tuple[str, Sample]], end: str, places: list[int]
) -> None:
    text = "".join(f"{before} {sample.text} " for before, sample in parts) + end
    left = "".join(streamed(cut(text, places)))
    assert left == SCANNER.redact(text)[0]
    for _, sample in parts:
        assert sample.body not in left


@settings(max_examples=300, deadline=None)
@given(samples, st.integers(1, 5_000))
def test_an_interruption_lets_out_no_more_than_the_beginning_of_a_body(
    sample: Sample, place: int
) -> None:
    text = f"{sample.text} and on"
    place %= len(text)
    stream = TextStream(SCANNER)
    before = (stream.feed(text[:place]) or "") + stream.interrupt()
    after = (stream.feed(text[place:]) or "") + stream.finish()
    assert sample.body not in before + after
    assert all(sample.body[i : i + 8] not in before + after for i in range(len(sample.body) - 7))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 17])
def test_prose_is_never_held_back_or_changed(size: int) -> None:
    stream = TextStream(SCANNER)
    pieces = [PROSE[i : i + size] for i in range(0, len(PROSE), size)]
    assert [stream.feed(piece) for piece in pieces] == pieces
    assert SCANNER.redact(PROSE) == (PROSE, [])


# Every prefix has one of these, so a text without them holds none.
IN_PREFIXES = ":-_Aesx."


def test_every_prefix_has_a_character_that_the_next_test_leaves_out() -> None:
    prefixes = [prefix for pattern in PATTERNS for prefix in pattern.prefixes]
    assert [prefix for prefix in prefixes if not set(prefix) & set(IN_PREFIXES)] == []


@given(st.lists(st.text(alphabet=st.characters(exclude_characters=IN_PREFIXES), max_size=20)))
def test_what_holds_no_prefix_passes_piece_by_piece(pieces: list[str]) -> None:
    stream = TextStream(SCANNER)
    assert [stream.feed(piece) for piece in pieces] == pieces


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: f"{sample.kind}-{sample.text[:12]}")
def test_what_is_held_leaves_with_the_next_ordinary_text(sample: Sample) -> None:
    stream = TextStream(SCANNER)
    stream.feed(f"{sample.text[:-1]}")
    assert stream.feed(f"{sample.text[-1]} \nand then some <prose>") is not None
    assert not stream.holding


def test_the_run_s_own_credential_is_taken_out_by_exact_match() -> None:
    credential = "opaque-credential-of-this-run-0123456789"
    scanner = Scanner([credential])
    text = f"my token is {credential}."
    for place in range(len(text) + 1):
        left = "".join(streamed([text[:place], text[place:]], scanner))
        assert left == f"my token is opaque{MASK}."
    assert SCANNER.redact(text) == (text, [])


def test_a_token_that_is_also_a_jwt_is_taken_out_once() -> None:
    token = next(sample for sample in SAMPLES if sample.kind == "jwt").text
    text, names = Scanner([token]).redact(f"<{token}>")
    assert text == f"<eyJhbG{MASK}>"
    assert names == ["own_credential"]


def test_a_private_key_that_is_cut_off_is_taken_out() -> None:
    text, names = SCANNER.redact("see -----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIB")
    assert text == f"see -----BEGIN {MASK}"
    assert names == ["private_key"]


def test_a_private_key_larger_than_what_may_be_held_does_not_leave() -> None:
    lines = ["-----BEGIN PRIVATE KEY-----\n", *["QUJDREVGR0g" * 6 + "\n"] * 600]
    left = "".join(streamed([*lines, "-----END PRIVATE KEY-----", " done"]))
    assert "QUJD" not in left
    assert left.endswith(" done")


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: f"{sample.kind}-{sample.text[:12]}")
def test_secrets_without_anything_between_them_are_all_taken_out(sample: Sample) -> None:
    text = sample.text * 4
    whole = SCANNER.redact(text)[0]
    assert sample.body not in whole
    assert "".join(streamed(list(text))).count(sample.body[-8:]) == whole.count(sample.body[-8:])


def test_a_port_is_no_password() -> None:
    stream = TextStream(SCANNER)
    left = (stream.feed("see redis://cache:6379") or "") + stream.interrupt()
    assert left == "see redis://cache:6379"


def test_a_certificate_is_no_secret() -> None:
    text = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
    assert "".join(streamed(list(text))) == text


@pytest.mark.parametrize(
    "text",
    [
        "eyJ" * 80_000,
        "postgres://" * 20_000,
        "://" * 80_000,
        "-----BEGIN PRIVATE KEY-----" * 9_000,
        "ghp_" * 60_000,
        "-----BEGIN " * 20_000,
        "aws_secret_access_key = " * 10_000,
    ],
    ids=lambda text: text[:16],
)
def test_no_text_takes_more_than_linear_time(text: str) -> None:
    def seconds(text: str) -> float:
        began_s = time.process_time()
        SCANNER.redact(text)
        return time.process_time() - began_s

    seconds(text[: len(text) // 8])
    assert seconds(text) < 60 * max(seconds(text[: len(text) // 8]), 0.002)
    assert seconds(text) < 3


def test_a_secret_streamed_one_character_at_a_time_costs_linear_time() -> None:
    stream = TextStream(SCANNER)
    stream.feed("-----BEGIN PRIVATE KEY-----")
    began_s = time.process_time()
    for _ in range(15_000):
        stream.feed("x")
    assert time.process_time() - began_s < 1
