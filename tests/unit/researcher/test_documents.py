"""Cutting documents."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorychain.builtin.researcher.documents import (
    Document,
    language_reference,
    parse,
    read_folder,
)
from factorychain.errors import AgentError

MARKDOWN = """---
Intro text.

# Install

Run this:

```sh
# not a heading

make install
```

## Linux ##

Use apt.

Other
=====

Setext text.
"""


def test_headings_of_markdown_nest_and_fenced_code_has_none() -> None:
    sections = parse(Document("a.md", MARKDOWN))
    assert [(each.heading, each.line) for each in sections] == [
        ("", 1),
        ("Install", 4),
        ("Install › Linux", 14),
        ("Install › Other", 18),
    ]
    (install,) = sections[1].passages
    assert install.line == 6
    assert install.text.startswith("Run this:")
    assert install.text.endswith("make install\n```")


def test_underlined_titles_of_plain_text_are_headings() -> None:
    text = "Title\n*****\n\nIntro.\n\n\nPart one\n========\n\nBody.\n\nDeep\n~~~~\n\nMore.\n"
    headings = [each.heading for each in parse(Document("a.txt", text))]
    assert headings == ["Title", "Title › Part one", "Title › Part one › Deep"]


def test_rows_of_a_table_and_rules_are_no_headings() -> None:
    text = "Intro.\n\n---\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    assert [each.heading for each in parse(Document("a.md", text))] == [""]


def test_a_long_grid_is_cut_between_its_rows() -> None:
    row = "| " + "x" * 60 + " |\n| " + "y" * 60 + " |\n+" + "-" * 62 + "+\n"
    text = "+" + "-" * 62 + "+\n" + row * 40
    (section,) = parse(Document("a.txt", text))
    assert len(section.passages) > 3
    assert all(each.text.endswith("-+") for each in section.passages)


@given(st.text(alphabet="ab \n#=-`~|+:.", max_size=400))
def test_every_passage_is_consecutive_lines_of_the_document_unchanged(text: str) -> None:
    lines = text.splitlines()
    for section in parse(Document("a", text)):
        for passage in section.passages:
            quoted = passage.text.split("\n")
            at = passage.line - 1
            original = "\n".join(lines[at : at + len(quoted)])
            assert original.rstrip() == passage.text.rstrip()
            assert passage.text.strip()


def test_the_language_reference_is_cut_without_losing_a_line_of_text() -> None:
    (document,) = [each for each in language_reference() if each.name == "topics/with"]
    sections = parse(document)
    assert sections[0].heading == 'The "with" statement'
    kept = "".join(each.text for section in sections for each in section.passages)
    words = [word for word in document.text.split() if word.isalpha()]
    missing = [word for word in words if word not in kept]
    assert missing == []


def test_a_folder_is_read_with_those_in_it_and_hidden_ones_left_out(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "b.md").write_text("b")
    (tmp_path / "sub" / "a.TXT").write_bytes(b"caf\xe9")
    (tmp_path / ".git" / "c.md").write_text("c")
    (tmp_path / "d.py").write_text("d")
    found = {each.name: each.text for each in read_folder(tmp_path)}
    assert found == {"b.md": "b", "sub/a.TXT": "caf�"}


def test_a_folder_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    file = tmp_path / "file.md"
    file.write_text("x")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "blank.md").write_text(" \n")
    for folder, says in (
        (tmp_path / "nowhere", "does not exist"),
        (file, "is not a folder"),
        (empty, "has no text to read"),
    ):
        with pytest.raises(AgentError, match=says):
            read_folder(folder)


def test_a_file_that_cannot_be_read_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.md").write_text("x")

    def denied(self: Path, *_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(AgentError, match=r"a\.md cannot be read: Permission denied"):
        read_folder(tmp_path)
