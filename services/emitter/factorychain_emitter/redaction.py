"""Finds secrets in texts, and takes out their bodies.

Invariant: a secret's body never leaves, in however many pieces its text comes, as long as the
pieces follow each other; if something else comes between them, at most seven characters do. A text
in pieces, joined, equals the same text redacted in one. Prose is never held back: only what begins
like a secret is, and what is held depends on nothing but the texts (no clock).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from factorychain_emitter.patterns import COMMON_MARKS, PATTERNS, Exact, Found, SecretPattern

MASK = "[REDACTED]"

HELD_MAX_CHARS = 16_384
"""No more than this is held. A secret that is longer (a private key) is masked as it comes."""

_TAIL_CHARS = 96  # as long as any prefix with what may stand between it and the body


_OVERLAP_CHARS = max(len(prefix) for pattern in PATTERNS for prefix in pattern.prefixes) - 1

_Place = tuple[int, int, SecretPattern]  # where a prefix stands, its length, and whose it is


class Hit(NamedTuple):
    """A body that is to be taken out."""

    start: int
    end: int
    name: str


class Scan(NamedTuple):
    """What was found in a text."""

    hits: list[Hit]
    held_from: int
    """From where on the text may be the beginning of a secret; its length if nothing is."""
    candidate: SecretPattern | None
    found: Found | None


class Scanner:
    """All patterns, and the run's own credentials."""

    def __init__(self, credentials: Iterable[str] = ()) -> None:
        exact = [Exact(each) for each in credentials if len(each) >= 16]
        self._marks = [*_by_mark(exact), *_MARKS]

    def add(self, credential: str) -> None:
        """Another one of the run's own."""
        self._marks = [*_by_mark([Exact(credential)]), *self._marks]

    def suspicions(self, text: str) -> list[tuple[str, SecretPattern]]:
        """The prefixes of secrets that occur in a text; also for UTF-8 read as Latin-1."""
        found = []
        for mark, prefixes in self._marks:
            if mark in text:
                found += [each for each in prefixes if each[0] in text]
        return found

    def scan(self, text: str, *, last: bool) -> Scan:
        """Goes through a text once. `last`: nothing will follow it, so nothing is held."""
        suspicions = self.suspicions(text)
        hits: list[Hit] = []
        if suspicions:
            next_at = [(text.find(prefix), len(prefix), pattern) for prefix, pattern in suspicions]
            return self._walk(text, next_at, hits, last)
        return Scan(hits, len(text), None, None)

    def _walk(self, text: str, places: list[_Place], hits: list[Hit], last: bool) -> Scan:
        while places:
            index = min(range(len(places)), key=lambda i: (places[i][0], -places[i][1]))
            at, length, pattern = places[index]
            found = pattern.at(text, at + length)
            if found.open and not last:
                return Scan(hits, at, pattern, found)
            if found.complete:
                if not hits or found.end > hits[-1].end:
                    hits.append(Hit(found.start, found.end, pattern.name))
                # The end of a body may be the beginning of the next secret's prefix.
                places = _advanced(text, places, max(at + 1, found.end - _OVERLAP_CHARS))
            else:
                # A miss is this pattern's own: others may begin in what it has looked at.
                own = _advanced(text, [places[index]], max(found.end, at + 1))
                places = [*places[:index], *own, *places[index + 1 :]]
        return Scan(hits, len(text), None, None)

    def redact(self, text: str) -> tuple[str, list[str]]:
        """A whole text without its secrets, and the names of what was taken out."""
        hits = self.scan(text, last=True).hits
        if not hits:
            return text, []
        return _masked(text, 0, len(text), hits), [hit.name for hit in hits]


def _advanced(text: str, places: list[_Place], start: int) -> list[_Place]:
    """The next place of each prefix at or behind `start`."""
    moved = []
    for place, length, pattern in places:
        at = place if place >= start else text.find(text[place : place + length], start)
        if at >= 0:
            moved.append((at, length, pattern))
    return moved


_Marked = tuple[str, list[tuple[str, SecretPattern]]]


def _by_mark(patterns: Iterable[SecretPattern]) -> list[_Marked]:
    marked: dict[str, list[tuple[str, SecretPattern]]] = {}
    for pattern in patterns:
        for prefix in pattern.prefixes:
            mark = next((each for each in COMMON_MARKS if each in prefix), prefix)
            marked.setdefault(mark, []).append((prefix, pattern))
    return list(marked.items())


def _masked(text: str, start: int, end: int, hits: Iterable[Hit]) -> str:
    """`text[start:end]` with a mask for each body in it."""
    pieces = []
    for hit in hits:
        if hit.end <= start:
            continue
        pieces += [text[start : max(start, hit.start)], MASK]
        start = hit.end
    pieces.append(text[start:end])
    return "".join(pieces)


# Nearly every text is clean, so what decides the cost is how few searches say so: one for the mark
# that several prefixes have in common.
_MARKS = _by_mark(PATTERNS)


class TextStream:
    """One text that comes in pieces: a streamed message."""

    __slots__ = (
        "_candidate",
        "_held",
        "_held_chars",
        "_in_body",
        "_scanner",
        "_swallow",
        "_swallowed",
        "_tail",
        "redacted",
    )

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._tail = ""  # the end of what has left, as it came
        self._held: list[str] = []
        self._held_chars = 0
        self._candidate: SecretPattern | None = None
        self._in_body = False
        self._swallow: SecretPattern | None = None
        self._swallowed = ""
        self.redacted: list[str] = []
        """Names of what was taken out since the owner looked last."""

    @property
    def holding(self) -> bool:
        return bool(self._held)

    def feed(self, text: str) -> str | None:
        """What may leave now that this piece has come; None: it is held, with what was before."""
        text = self._skip(text)
        if not self._held and not self._scanner.suspicions(self._tail + text):
            self._tail = (self._tail + text)[-_TAIL_CHARS:]
            return text
        self._held.append(text)
        self._held_chars += len(text)
        if self._held_chars > HELD_MAX_CHARS:
            return self._leave(interrupted=False)
        if self._in_body and self._candidate is not None and self._candidate.continues(text):
            return None
        return self._judge()

    def interrupt(self) -> str:
        """Something else comes: what is held leaves, masked if it is likely a secret's beginning."""
        return self._leave(interrupted=True)

    def finish(self) -> str:
        """Nothing more comes: what is held leaves, masked if it is a secret as it is."""
        text = self._tail + "".join(self._held)
        return self._release(text, len(self._tail), self._scanner.scan(text, last=True).hits)

    def _skip(self, text: str) -> str:
        """Drops what still belongs to a body that was masked before it had ended."""
        if self._swallow is None:
            return text
        known = len(self._swallowed)
        joined = self._swallowed + text
        end = self._swallow.rest(joined)
        if end is None:
            self._swallowed = joined[-_TAIL_CHARS:]
            return ""
        self._swallow = None
        return joined[max(end, known) :]

    def _judge(self) -> str | None:
        text = self._tail + "".join(self._held)
        emitted = len(self._tail)
        scan = self._scanner.scan(text, last=False)
        self._candidate = scan.candidate
        if scan.candidate is not None and scan.found is not None:
            self._in_body = scan.found.end > scan.found.start
            # Whole pieces are held, never parts: a piece sent again would double the part that left.
            return None
        return self._release(text, emitted, scan.hits)

    def _leave(self, *, interrupted: bool) -> str:
        text = self._tail + "".join(self._held)
        emitted = len(self._tail)
        scan = self._scanner.scan(text, last=False)
        found, candidate = scan.found, scan.candidate
        if found is None or candidate is None:
            return self._release(text, emitted, scan.hits)
        likely = interrupted and found.end - found.start >= candidate.surely_chars
        if not found.complete and not likely:
            return self._release(text, emitted, scan.hits)
        hit = Hit(found.start, len(text), candidate.name)
        left = self._release(text, emitted, [*scan.hits, hit])
        self._tail = ""
        self._swallow, self._swallowed = candidate, ""
        return left

    def _release(self, text: str, emitted: int, hits: list[Hit]) -> str:
        left = _masked(text, emitted, len(text), hits)
        self.redacted += [hit.name for hit in hits if hit.end > emitted]
        # The search goes on behind what was taken out, as it would in one piece.
        behind = hits[-1].end - _OVERLAP_CHARS if hits else 0
        self._tail = text[max(behind, len(text) - _TAIL_CHARS, 0) :]
        self._held.clear()
        self._held_chars = 0
        self._candidate = None
        self._in_body = False
        return left
