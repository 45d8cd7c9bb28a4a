"""Searching and reading the documents: one run's view of the index.

Ranking is BM25 first (headings count more than text), then by how much of the question a passage
covers, its words weighted by how rare they are: a passage with the one rare word of a question says
more about it than one with all the common ones.
"""

from __future__ import annotations

import math
import re
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from factorychain.builtin.researcher.index import DocumentIndex

_CANDIDATES = 60
# BM25 weights of the columns: the document's name, the heading, the text.
_WEIGHTS = "2.0, 5.0, 1.0"
_EXCERPT_CHARS = 320
_WORDLIKE = re.compile(r"\w")


@dataclass(frozen=True, slots=True)
class Passage:
    """A place in a document, as the search finds it."""

    document: str
    heading: str
    line: int
    text: str
    covers: tuple[str, ...]
    """The words looked for that stand in it or above it."""
    score: float
    """From 0 to about 2; more is better."""


@dataclass(frozen=True, slots=True)
class Section:
    """A section as it stands in its document."""

    document: str
    heading: str
    line: int
    passages: tuple[tuple[int, str], ...]
    """(first line, text) of each, in order."""

    @property
    def text(self) -> str:
        return "\n\n".join(text for _, text in self.passages)


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    bm25: float
    document: str
    heading: str
    line: int
    text: str


class DocumentLibrary:
    """The documents, for one run. Its methods block for milliseconds and are called in threads."""

    def __init__(self, index: DocumentIndex) -> None:
        self.index = index
        self._database = index.connect()
        self._one_at_a_time = threading.Lock()

    def close(self) -> None:
        """Close the run's connection."""
        with self._one_at_a_time:
            self._database.close()

    def weights(self, words: Sequence[str]) -> dict[str, float]:
        """How much each word tells: its inverse document frequency over all passages."""
        total = max(self.index.passages, 1)
        found = {}
        for word in words:
            count = self._count(word)
            found[word] = math.log(1 + (total - count + 0.5) / (count + 0.5))
        return found

    def known(self, words: Sequence[str]) -> dict[str, bool]:
        """Which of the words stand anywhere in the documents."""
        return {word: self._count(word) > 0 for word in words}

    def search(
        self, words: Sequence[str], phrases: Sequence[str] = (), limit: int = 5
    ) -> list[Passage]:
        """The best passages for words, at most two of a section."""
        weights = self.weights(words)
        rows = self._candidates(words, phrases)
        if not rows:
            return []
        ids = [each.id for each in rows]
        holders = {word: self._holders(word, ids) for word in words}
        together = {phrase: self._holders(phrase, ids) for phrase in phrases}
        whole = sum(weights.values()) or 1.0
        best = max(-each.bm25 for each in rows) or 1.0
        found = []
        for each in rows:
            covers = tuple(word for word in words if each.id in holders[word])
            coverage = sum(weights[word] for word in covers) / whole
            bonus = 0.25 * any(each.id in found_in for found_in in together.values())
            score = coverage + 0.5 * (-each.bm25 / best) + bonus + _about(each, words)
            found.append(
                Passage(each.document, each.heading, each.line, each.text, covers, round(score, 4))
            )
        found.sort(key=lambda each: (-each.score, each.document, each.line))
        return _spread(found, limit)

    def read(self, document: str, line: int) -> Section | None:
        """The section of a document that a line is in; None if there is none."""
        rows = self._rows(
            """SELECT s.id, s.heading, s.line FROM sections s JOIN documents d ON d.id = s.document
            WHERE d.name = ? AND s.line <= ? ORDER BY s.line DESC LIMIT 1""",
            (document, line),
        )
        if not rows:
            return None
        section, heading, first = rows[0]
        passages = self._rows(
            "SELECT line, text FROM passages WHERE section = ? ORDER BY line", (section,)
        )
        return Section(
            document, str(heading), int(first), tuple((int(at), str(text)) for at, text in passages)
        )

    def names(self, limit: int = 20) -> list[str]:
        """Names of some documents."""
        rows = self._rows("SELECT name FROM documents ORDER BY name LIMIT ?", (limit,))
        return [str(name) for (name,) in rows]

    def _candidates(self, words: Sequence[str], phrases: Sequence[str]) -> list[_Row]:
        wanted = [_quoted(each) for each in [*words, *phrases] if _WORDLIKE.search(each)]
        rows = []
        if wanted:
            rows = self._rows(
                f"""SELECT w.rowid, bm25(words, {_WEIGHTS}) AS rank FROM words w
                WHERE words MATCH ? ORDER BY rank LIMIT {_CANDIDATES}""",  # noqa: S608
                (" OR ".join(wanted),),
            )
        ranked = {int(row): float(rank) for row, rank in rows}
        for word in words:
            if not _WORDLIKE.search(word):
                for row in self._with_symbol(word):
                    ranked.setdefault(row, -0.1)
        return [self._row(row, rank) for row, rank in ranked.items()]

    def _row(self, row: int, rank: float) -> _Row:
        found = self._rows(
            """SELECT d.name, s.heading, p.line, p.text FROM passages p
            JOIN sections s ON s.id = p.section JOIN documents d ON d.id = s.document
            WHERE p.id = ?""",
            (row,),
        )
        name, heading, line, text = found[0]
        return _Row(row, rank, str(name), str(heading), int(line), str(text))

    def _count(self, word: str) -> int:
        if not _WORDLIKE.search(word):
            return len(self._with_symbol(word))
        rows = self._rows("SELECT count(*) FROM words WHERE words MATCH ?", (_quoted(word),))
        return int(rows[0][0])

    def _holders(self, word: str, ids: Sequence[int]) -> set[int]:
        """Which of the passages have the word (or phrase) in them or above them."""
        if not _WORDLIKE.search(word):
            return set(self._with_symbol(word)) & set(ids)
        marks = ", ".join("?" * len(ids))
        rows = self._rows(
            f"SELECT rowid FROM words WHERE words MATCH ? AND rowid IN ({marks})",  # noqa: S608
            (_quoted(word), *ids),
        )
        return {int(row) for (row,) in rows}

    def _with_symbol(self, symbol: str) -> list[int]:
        """Operators are no words to a full-text index."""
        rows = self._rows("SELECT id FROM passages WHERE instr(text, ?) LIMIT 500", (symbol,))
        return [int(row) for (row,) in rows]

    def _rows(self, query: str, values: Sequence[object]) -> list[tuple[object, ...]]:
        with self._one_at_a_time:
            return self._database.execute(query, tuple(values)).fetchall()


def _quoted(word: str) -> str:
    """A word for FTS5: `sys.exc_info` becomes a phrase of its parts."""
    return '"' + word.replace('"', '""') + '"'


def _about(row: _Row, words: Sequence[str]) -> float:
    """More for a passage whose heading or document is named like a word that is looked for."""
    title = {part.lower().rstrip("s") for part in re.findall(r"\w+", row.heading.split(" › ")[-1])}
    name = row.document.rsplit("/", 1)[-1].rsplit(".", 1)[0].lower()
    hits = sum(1 for word in words if word.rstrip("s") in title)
    return 0.3 * hits / max(len(words), 1) + (0.3 if name in words else 0.0)


def _spread(found: list[Passage], limit: int) -> list[Passage]:
    kept: list[Passage] = []
    of_section: dict[tuple[str, str], int] = {}
    for each in found:
        key = (each.document, each.heading)
        if of_section.get(key, 0) < 2:
            of_section[key] = of_section.get(key, 0) + 1
            kept.append(each)
        if len(kept) == limit:
            break
    return kept
