"""Text and Markdown cut into sections and passages.

Invariant: every passage is a run of consecutive lines of its document, unchanged, with the number of
its first line, so that what is quoted can be found where it is said to be.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from factorychain.errors import AgentError

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".md", ".markdown", ".mdown", ".txt", ".text", ".rst"})
# Larger files are data, not documents to be read.
_FILE_MAX_BYTES = 16 * 1024 * 1024
# A passage is closed when it has this much; below the smaller number it takes the next paragraph in.
_FULL_CHARS = 900
_SMALL_CHARS = 240

_ATX = re.compile(r"(#{1,6})\s+(.+?)\s*#*\s*$")
_UNDERLINE = re.compile(r"([=\-~^*#+])\1{2,}\s*$")
_FENCE = re.compile(r"\s*(```+|~~~+)")
_TABLE_RULE = re.compile(r"\s*\+[-=+]+\+\s*$")
_RANK = {"#": 1, "*": 1, "=": 2, "-": 3, "~": 4, "^": 4, "+": 4}


@dataclass(frozen=True, slots=True)
class Document:
    """One document: a file of the folder, or a topic of the language reference."""

    name: str
    """Path in the folder, with slashes."""
    text: str


@dataclass(slots=True)
class ParsedSection:
    """A heading and what stands under it, up to the next one."""

    heading: str
    """With the headings above it, as `Installation › Linux`; empty before the first one."""
    line: int
    passages: list[ParsedPassage] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ParsedPassage:
    """Paragraphs that belong together, with the code or the list that follows them."""

    line: int
    """1 is the first of the document."""
    text: str


def read_folder(folder: Path) -> list[Document]:
    """The text and Markdown files of a folder and of those in it, by name; hidden ones are left out.

    Raises:
        AgentError: there is no such folder, it cannot be read, or there is nothing to read in it.
    """
    if not folder.exists():
        raise _unusable(f"the folder of documents {folder} does not exist")
    if not folder.is_dir():
        raise _unusable(f"{folder} is not a folder; name the folder that the documents are in")
    found = []
    try:
        for path in sorted(_files(folder)):
            name = path.relative_to(folder).as_posix()
            found.append(Document(name, path.read_text("utf-8", errors="replace")))
    except OSError as error:
        where = error.filename or folder
        raise _unusable(f"{where} cannot be read: {error.strerror or error}") from error
    if not any(each.text.strip() for each in found):
        kinds = " ".join(sorted(SUFFIXES))
        raise _unusable(f"the folder {folder} has no text to read (looked for {kinds})")
    return found


def language_reference() -> list[Document]:
    """The language reference that CPython ships for `help()`, one document a topic."""
    from pydoc_data.topics import topics

    return [Document(f"topics/{name}", text) for name, text in sorted(topics.items())]


def parse(document: Document) -> list[ParsedSection]:
    """The document's sections that have text."""
    lines = document.text.splitlines()
    headings = dict(_headings(lines))
    sections = [ParsedSection("", 1)]
    above: list[tuple[int, str]] = []
    start = 0
    for at, (rank, title, size) in headings.items():
        sections[-1].passages = list(_passages(lines, start, at))
        above = [*(each for each in above if each[0] < rank), (rank, title)]
        sections.append(ParsedSection(" › ".join(each[1] for each in above), at + 1))
        start = at + size
    sections[-1].passages = list(_passages(lines, start, len(lines)))
    return [each for each in sections if each.passages]


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            if path.stat().st_size > _FILE_MAX_BYTES:
                log.warning("%s is larger than %s bytes and left out", path, _FILE_MAX_BYTES)
                continue
            yield path


def _unusable(problem: str) -> AgentError:
    return AgentError(problem, reason="DOCUMENTS_UNUSABLE")


def _headings(lines: list[str]) -> Iterator[tuple[int, tuple[int, str, int]]]:
    """Line index → (rank, title, lines of the heading); none inside of fenced code."""
    fence = ""
    for at, line in enumerate(lines):
        was, fence = fence, _fence(lines, at, fence)
        if fence or was:
            continue
        atx = _ATX.match(line)
        if atx:
            yield at, (len(atx.group(1)), atx.group(2), 1)
            continue
        below = lines[at + 1] if at + 1 < len(lines) else ""
        if _is_underlined(line, below, lines[at - 1] if at else ""):
            yield at, (_RANK[below.strip()[0]], line.strip(), 2)


def _fence(lines: list[str], at: int, fence: str) -> str:
    """The fence that is open after a line; empty if none is. Tildes below a title underline it."""
    mark = _FENCE.match(lines[at])
    if mark is None:
        return fence
    if fence:
        return "" if mark.group(1).startswith(fence) else fence
    underlines = mark.group(1)[0] == "~" and at > 0 and bool(lines[at - 1].strip())
    return "" if underlines else mark.group(1)


def _is_underlined(line: str, below: str, above: str) -> bool:
    """A title stands alone at the margin and its underline is about as long as it is."""
    if not line.strip() or line[0].isspace() or not _UNDERLINE.match(below):
        return False
    if above.strip() or _UNDERLINE.match(line) or line.startswith(("|", ">", "- ", "* ")):
        return False
    return len(below.strip()) >= min(len(line.strip()), 60) - 2


def _passages(lines: list[str], start: int, end: int) -> Iterator[ParsedPassage]:
    first, last, size = -1, -1, 0
    for begin, stop in _paragraphs(lines, start, end):
        length = sum(len(each) + 1 for each in lines[begin:stop])
        if first >= 0 and not _belongs(lines, last, begin, size, length):
            yield _passage(lines, first, last)
            first, size = -1, 0
        first = begin if first < 0 else first
        last, size = stop, size + length
    if first >= 0:
        yield _passage(lines, first, last)


def _belongs(lines: list[str], last: int, begin: int, size: int, length: int) -> bool:
    """Whether a paragraph continues the passage before it."""
    if size + length > 2 * _FULL_CHARS:
        return False
    before, here = lines[last - 1].rstrip(), lines[begin]
    if before.endswith(":") or here[:1].isspace() or _FENCE.match(here):
        return size < _FULL_CHARS or before.endswith(":")
    return size < _SMALL_CHARS and size + length <= _FULL_CHARS


def _paragraphs(lines: list[str], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Runs of lines between blank ones; fenced code is one, whatever is in it."""
    begin, size, fence = -1, 0, ""
    for at in range(start, end):
        fence = _fence(lines, at, fence)
        if lines[at].strip() or fence:
            begin = at if begin < 0 else begin
            size += len(lines[at]) + 1
            if size > _FULL_CHARS and not fence and _may_cut(lines, begin, at):
                yield begin, at + 1
                begin, size = -1, 0
        elif begin >= 0:
            yield begin, at
            begin, size = -1, 0
    if begin >= 0:
        yield begin, end


def _may_cut(lines: list[str], begin: int, at: int) -> bool:
    """Whether a paragraph that is too long may end here: between rows of a table, after a sentence."""
    first, line = lines[begin].lstrip(), lines[at]
    if first.startswith(("+-", "|")) and line.lstrip().startswith(("|", "+")):
        # Rows of a grid have rules between them, those of Markdown are a line each.
        grid = first.startswith("+-") or _TABLE_RULE.match(lines[max(begin - 1, 0)])
        return bool(_TABLE_RULE.match(line)) if grid else "---" not in line
    return line.rstrip().endswith((".", ":", ";"))


def _passage(lines: list[str], first: int, last: int) -> ParsedPassage:
    return ParsedPassage(first + 1, "\n".join(lines[first:last]).rstrip())
