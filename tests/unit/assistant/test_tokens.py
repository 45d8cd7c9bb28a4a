"""The estimate of tokens."""

from __future__ import annotations

from factorychain.builtin.assistant.tokens import tokens


def test_english_is_estimated_on_the_high_side() -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 20  # 10 tokens each in cl100k
    assert 200 <= tokens(text) <= 400


def test_a_script_with_more_bytes_a_character_has_more_tokens() -> None:
    assert tokens("日本語の文章" * 50) > 2 * tokens("abcdef" * 50)


def test_an_image_counts_the_same_however_it_comes() -> None:
    small = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    large = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    assert tokens(small) == tokens(large) > 1000


def test_a_message_counts_with_its_frame() -> None:
    assert tokens({"role": "user", "content": ""}) > tokens("user")
    assert tokens([{"role": "user", "content": "a"}] * 3) == 3 * tokens(
        {"role": "user", "content": "a"}
    )
