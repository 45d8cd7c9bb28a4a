"""A secret is shown nowhere, and taken out of a stream wherever that is cut."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorychain._core.settings import Misconfigured
from factorychain_agents.gateway.secret import REMOVED, Remover, Secret, secret_file, secret_text

_SECRET = "sk-abcabd"


def test_it_is_not_shown() -> None:
    secret = Secret(_SECRET)
    assert _SECRET not in f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() == _SECRET


@given(
    st.lists(st.sampled_from([_SECRET, "sk-abc", "s", "abd", " plain ", "sk-abcabcabd"])), st.data()
)
def test_it_is_removed_from_any_stream_however_that_is_cut(
    parts: list[str], data: st.DataObject
) -> None:
    whole = "".join(parts).encode()
    remover, found = Remover([Secret(_SECRET)]), b""
    left = whole
    while left:
        size = data.draw(st.integers(1, len(left)))
        found += remover.feed(left[:size])
        left = left[size:]
    found += remover.finish()
    assert found == whole.replace(_SECRET.encode(), REMOVED)


def test_what_cannot_become_the_secret_is_not_held_back() -> None:
    remover = Remover([Secret(_SECRET)])
    assert remover.feed(b"nothing of it") == b"nothing of it"
    assert remover.feed(b"perhaps sk-ab") == b"perhaps "
    assert remover.feed(b"!") == b"sk-ab!"


def test_a_secret_that_would_be_found_in_any_text_is_left_alone() -> None:
    assert Remover([Secret("a"), Secret("")]).whole(b"banana") == b"banana"


def test_files_hold_secrets_that_headers_can(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{_SECRET}\n")
    assert secret_file(file, "X").reveal() == _SECRET
    for text in ("", " \n", "a\nb", "é"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(Misconfigured, match="X") as refused:
            secret_file(file, "X")
        assert str(file) in str(refused.value)
    with pytest.raises(Misconfigured, match="cannot be read"):
        secret_file(tmp_path / "none", "X")
    with pytest.raises(Misconfigured):
        secret_text("", "X")
