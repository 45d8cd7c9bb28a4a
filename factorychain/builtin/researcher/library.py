"""Searching and reading the documents: one run's view of the index.

Ranking is BM25 first (headings count more than text), then by how much of the question a passage
covers, its words weighted by how rare they are: a passage with the one rare word of a question says
more about it than one with all the common ones.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from factorychain.builtin.researcher.index import DocumentIndex

_CANDIDATES = 60
# BM25 weights of the columns: the document's name, the heading, the text.
_WEIGHTS = "2.0, 5.0, 1.0"
_EXCERPT_CHARS = 320
_OPENING_CHARS = 90
_SHORT_CHARS = 120
_GRAMMAR = "::="
_ASIDE = re.compile(
    r"\W*(?:(?:See also|Changed in version|New in version|Deprecated|Footnotes)\b|\d+\] )"
)
_WORDLIKE = re.compile(r"\w")
_QUOTED = re.compile(r'"([^"]+)"')
_MOST_FOUND = 20


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

    def find(self, query: str, limit: int = 5) -> list[Passage]:
        """As `search`, for a query as people and models write it: "in quotes" for a phrase."""
        words = _QUOTED.sub(" ", query).split()
        return self.search(words, _QUOTED.findall(query), max(1, min(limit, _MOST_FOUND)))

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
            score = coverage + 0.5 * (-each.bm25 / best) + bonus
            score += _about(each, words, phrases) + _opening(each, weights, whole) - _aside(each)
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
                for row, share in self._with_symbol(word).items():
                    ranked[row] = min(ranked.get(row, 0.0), -4.0 * share)
        ranked = dict(sorted(ranked.items(), key=lambda each: each[1])[: 2 * _CANDIDATES])
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

    def _with_symbol(self, symbol: str) -> dict[int, float]:
        """Passages with an operator, which is no word to a full-text index, and how much of it they have."""
        rows = self._rows("SELECT id, text FROM passages WHERE instr(text, ?) LIMIT 500", (symbol,))
        alone = re.compile(rf"(?<![^\w\s\"'(`“‘]){re.escape(symbol)}(?![^\w\s\"'),.`”’])")
        counts = {int(row): len(alone.findall(text)) for row, text in rows}
        return {row: min(count, 4) / 4 for row, count in counts.items() if count}

    def _rows(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._one_at_a_time:
            return self._database.execute(query, tuple(values)).fetchall()


def _quoted(word: str) -> str:
    """A word for FTS5: `sys.exc_info` becomes a phrase of its parts."""
    return '"' + word.replace('"', '""') + '"'


def _about(row: _Row, words: Sequence[str], phrases: Sequence[str]) -> float:
    """More for a passage whose heading or document is named like what is looked for."""
    parts = [part.lower().rstrip("s") for part in re.findall(r"\w+", row.heading.split(" › ")[-1])]
    title = f" {' '.join(parts)} "
    name = row.document.rsplit("/", 1)[-1].rsplit(".", 1)[0].lower()
    hits = sum(1 for word in words if f" {word.rstrip('s')} " in title)
    named = any(f" {_singular(phrase)} " in title for phrase in phrases)
    return 0.3 * hits / max(len(words), 1) + 0.4 * named + 0.6 * (name in words)


def _opening(row: _Row, weights: Mapping[str, float], whole: float) -> float:
    """More for a passage that opens with what is looked for: it explains it, others mention it."""
    opening = row.text[:_OPENING_CHARS].lower()
    said = sum(weight for word, weight in weights.items() if stem(word) in opening)
    return 0.3 * said / whole


def _aside(row: _Row) -> float:
    """Less for references, notes on versions and grammars, which are full of names."""
    if _ASIDE.match(row.text):
        return 0.8
    return 0.3 if _GRAMMAR in row.text[:200] else 0.15 * (len(row.text) < _SHORT_CHARS)


def _singular(phrase: str) -> str:
    return " ".join(word.rstrip("s") for word in phrase.split())


def stem(word: str) -> str:
    """The part of a word that its forms share, roughly; for looking inside of a text."""
    return word[: max(4, len(word) - 3)]


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
