"""Links in the documents lead somewhere, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.docs.documents import DOCUMENTS, ROOT, name_of

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_PATH = re.compile(
    r"`((?:docs|protos|services|factorychain|tests|clients|deploy)/[A-Za-z0-9_./-]+)`"
)


def _prose(path: Path) -> str:
    return _FENCED.sub("", path.read_text("utf-8"))


def _anchors(path: Path) -> set[str]:
    """As code hosts make them: lower case, spaces to hyphens, punctuation gone."""
    headings = _HEADING.findall(_prose(path))
    return {re.sub(r"[^\w\- ]", "", each).strip().lower().replace(" ", "-") for each in headings}


def _broken(path: Path) -> list[str]:
    found = []
    for link in _LINK.findall(_prose(path)):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            found.append(link)
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_to_files_and_headings_that_exist(path: Path) -> None:
    assert _broken(path) == []


def test_a_broken_link_and_a_broken_anchor_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("# One two\n[a](b.md) [c](#one-two) [d](#three) [e](https://example.com)\n")
    assert _broken(path) == ["b.md", "#three"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_files_that_are_named_in_text_exist(path: Path) -> None:
    names = _PATH.findall(_prose(path))
    missing = [each for each in names if not (ROOT / each).exists() and not _is_module(each)]
    assert missing == []


def _is_module(name: str) -> bool:
    return "<" in name or (ROOT / f"{name}.py").exists()


@pytest.mark.parametrize(
    "folder", ["protos", "factorychain", "services", "clients", "deploy", "tests", "docs"]
)
def test_a_top_folder_says_what_lives_there(folder: str) -> None:
    assert (ROOT / folder / "README.md").is_file()
