"""Whether the documents answer a question, and the answer in their own words.

The rule: a question is answered by a passage that covers most of what it asks, its words weighted by
how rare they are in the documents. "What is the capital of France?" put to a language reference has one
word that no document knows, which weighs more than the one that some do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from factorychain.builtin.researcher.library import Passage, Section, stem
from factorychain.builtin.researcher.question import Question

COVERED = 0.6
"""A passage that covers this share of a question answers it."""
PARTLY = 0.34
"""From here on, and with at least two of its words, it is worth showing, with what is missing named."""

_MOST_SECTIONS = 3
_WHOLE_SECTION_CHARS = 1500
_QUOTE_CHARS = 700
_SHORT_QUOTE_CHARS = 420


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the documents have to say about a question."""

    answered: bool
    missing: tuple[str, ...]
    """Words of the question that the best passages do not cover, the rarest first."""
    unknown: tuple[str, ...] = ()
    """Of these, the words that stand nowhere in the documents."""
    passages: tuple[Passage, ...] = ()
    """The passages worth reading, the best first, each of another section."""


@dataclass(frozen=True, slots=True)
class Quote:
    """Lines of a document, unchanged."""

    document: str
    heading: str
    line: int
    text: str


def judge(
    question: Question,
    passages: Sequence[Passage],
    weights: Mapping[str, float],
    known: Mapping[str, bool],
) -> Verdict:
    """Whether these passages, the best first, answer the question.

    Args:
        question: what is asked.
        passages: what the search found.
        weights: how much each word of the question tells.
        known: whether it stands anywhere in the documents.
    """
    own = question.terms or question.earlier
    shares = [_share(each, own, weights) for each in passages]
    best = max(shares, default=0.0)
    at_best = [each for each, share in zip(passages, shares, strict=True) if share >= 0.9 * best]
    covered = {word for each in at_best for word in each.covers}
    missing = sorted((word for word in own if word not in covered), key=lambda each: -weights[each])
    unknown = tuple(word for word in missing if not known[word])
    words = max((sum(word in each.covers for word in own) for each in at_best), default=0)
    if best < COVERED and not (best >= PARTLY and words >= 2):
        return Verdict(False, tuple(missing), unknown)
    worth = [
        each
        for each, share in zip(passages, shares, strict=True)
        if share >= 0.75 * best and each.score >= 0.8 * passages[0].score
    ]
    return Verdict(True, tuple(missing), unknown, tuple(_of_other_sections(worth))[:_MOST_SECTIONS])


def quote(section: Section, found: Passage, *, first: bool) -> Quote:
    """What to show of a section in which a passage was found; more of the first one."""
    if first and len(section.text) <= _WHOLE_SECTION_CHARS:
        line = section.passages[0][0] if section.passages else section.line
        return Quote(section.document, section.heading, line, _joined(section.passages))
    room = _QUOTE_CHARS if first else _SHORT_QUOTE_CHARS
    lines = [line for line, _ in section.passages]
    at = lines.index(found.line) if found.line in lines else 0
    if at <= 2 and all(stem(word) in section.passages[0][1].lower() for word in found.covers):
        at = 0  # where a section opens with all of it, it explains it from there
    taken = [section.passages[at]]
    for following in section.passages[at + 1 :]:
        # What ends with a colon announces something; what begins in the margin is the next thing.
        goes_on = taken[-1][1].endswith(":") or following[1][:1].isspace()
        if len(_joined(taken)) + len(following[1]) > (2 * room if goes_on else room):
            break
        taken.append(following)
    return Quote(section.document, section.heading, taken[0][0], _joined(taken))


def compose(
    question: Question, verdict: Verdict, quotes: Sequence[Quote], about: str
) -> Iterator[str]:
    """The answer, line by line."""
    if verdict.unknown:
        yield f"{_capital(about)} say nothing about {_listed(verdict.unknown)}; "
        yield "this is the closest that they have.\n\n"
    elif verdict.missing:
        yield f"No passage covers all of it ({_listed(verdict.missing)} not); "
        yield "this is the closest.\n\n"
    elif question.earlier:
        yield f"About {_listed(question.words)}, as asked before:\n\n"
    for at, each in enumerate(quotes):
        yield f"{'See also' if at else 'From'} {_where(each)}:\n\n"
        for line in each.text.split("\n"):
            yield f"> {line}\n" if line else ">\n"
        yield "\n"
    yield "Sources: " + ", ".join(f"{each.document}:{each.line}" for each in quotes)


def decline(
    question: Question, verdict: Verdict, passages: Sequence[Passage], about: str
) -> Iterator[str]:
    """What to say when the documents do not answer."""
    if not question.words:
        yield f"I look things up in {about}; please ask about something that may be in there."
        return
    if verdict.unknown:
        yield f"{_capital(about)} do not answer this: "
        yield f"they say nothing about {_listed(verdict.unknown)}"
    elif verdict.missing:
        yield f"{_capital(about)} do not answer this: "
        yield f"nothing in them is about {_listed(question.terms or question.earlier)} together"
    else:
        yield f"{_capital(about)} do not answer this"
    near = [each for each in passages if each.covers]
    if near:
        yield f". The nearest that I found is {_where(near[0])}, which is about something else"
    yield "."


def _share(passage: Passage, words: Sequence[str], weights: Mapping[str, float]) -> float:
    whole = sum(weights[word] for word in words)
    if not whole:
        return 0.0
    return sum(weights[word] for word in words if word in passage.covers) / whole


def _of_other_sections(passages: Sequence[Passage]) -> Iterator[Passage]:
    seen: set[tuple[str, str]] = set()
    for each in passages:
        if (each.document, each.heading) not in seen:
            seen.add((each.document, each.heading))
            yield each


def _joined(passages: Sequence[tuple[int, str]]) -> str:
    """Passages of a section with the blank lines between them that the document has."""
    text = ""
    end = 0
    for line, passage in passages:
        text += "\n" * (line - end) if text else ""
        text += passage
        end = line + passage.count("\n")
    return text


def _where(place: Quote | Passage) -> str:
    heading = f"“{place.heading}”, " if place.heading else ""
    return f"{heading}{place.document}, line {place.line}"


def _listed(words: Sequence[str]) -> str:
    quoted = [f"“{each}”" for each in words]
    if len(quoted) <= 1:
        return "".join(quoted)
    return f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
