"""What a question is about: its words without those that only make it a question.

A follow-up ("and how do I close it?") is about what the question before it was about as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


def _set_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Words of asking and pointing. Words like "with", "for", "in" are here too: by themselves they say
# nothing, before what kind of thing they name ("with statement", "for loop") they do.
_ASKING = _set_of(
    """a about again all also am an and another any anything are aren't as at be because been being but by
    can can't cannot could couldn't describe did didn't do does doesn't doing don't each either else
    ever every exactly explain few find for from get give go good got had happen happens has have he
    her here him his how however i i'd i'll i'm i've if in instead into is isn't it it's its itself
    just kind know let let's like look make many may me mean means might more most much must my need
    no nor not now of off often on once one only or other our ours out over own please possible
    quickly rather really right same say says see shall she should show so some someone something
    still such sure take tell than thank thanks that that's the their them then there there's these
    they thing things this those through to too under up upon us use used uses using usually very
    want was way ways we well were what what's when whenever where whether which while who whom whose
    why will with within without won't work works would yes yet you you'd your yours between both
    difference differ different example examples exist exists called
    hello hi hey ok okay understand question answer say anyone somebody everybody"""
)
_POINTING = _set_of("it its itself that this these those they them their one ones there")
# "the in operator": a word before one of these is a name, however common it is.
_KINDS = _set_of(
    """argument attribute block clause command decorator expression field flag function keyword loop
    method module operator option parameter setting statement type variable"""
)
_NO_NAMES = _set_of(
    """a all an and any are each every all do does did how i its many more most my no of one or other
    our some that the their these this those to what which your"""
)
_BETWEEN = re.compile(
    r"\bbetween\s+(?:an?\s+|the\s+)?(\S+)\s+and\s+(?:an?\s+|the\s+)?(\S+)", re.IGNORECASE
)
_JOINING = _set_of("and but so then also or")
_WORD = re.compile(r"[^\W_](?:[\w.'’-]*[\w])?|__\w+__|_\w+")
_SYMBOL = re.compile(r"(?<!\S)[`'\"“”‘’]?([^\w\s`'\"“”‘’?.,;]{1,3})[`'\"“”‘’]?(?=[\s?.,;]|$)")
_QUOTED = re.compile(r"[`'\"“‘]([^\s`'\"”’]+)[`'\"”’]")


@dataclass(frozen=True, slots=True)
class Question:
    """What is looked for."""

    terms: tuple[str, ...]
    """Words that the question itself is about."""
    phrases: tuple[str, ...]
    """Words that stand together in it and would mean more together."""
    earlier: tuple[str, ...] = ()
    """Of a follow-up: what the conversation was about before."""

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.terms, *self.earlier)))

    @property
    def query(self) -> str:
        """As one text, for the search tool."""
        return " ".join(self.words)


def points_back(text: str) -> bool:
    """Whether a question cannot be understood without the conversation before it."""
    words = [each.lower() for each in _WORD.findall(text)]
    return _is_follow_up(words, _terms(text, words))


def understand(text: str, history: Sequence[str] = ()) -> Question:
    """Read a question.

    Args:
        text: the question.
        history: the questions before it, the oldest first.
    """
    words = [each.lower() for each in _WORD.findall(text)]
    terms = _terms(text, words)
    earlier: tuple[str, ...] = ()
    if history and _is_follow_up(words, terms):
        before = understand(history[-1], history[:-1])
        earlier = tuple(each for each in before.words if each not in terms)
    return Question(terms, _phrases(words, terms), earlier)


def _terms(text: str, words: list[str]) -> tuple[str, ...]:
    """Content words and operators; words of asking too where they are names of something."""
    names = {each.lower().rstrip("()") for each in _QUOTED.findall(text)}
    names.update(one for one, two in pairwise(words) if _is_kind(two))
    for pair in _BETWEEN.findall(text):
        names.update(each.lower().strip("`'\"?.,;") for each in pair)
    names -= _NO_NAMES
    found = [each for each in words if each in names or each not in _ASKING]
    found += [each for each in _SYMBOL.findall(text) if each not in {"-", "–", "—", "&", "(", ")"}]
    kept = dict.fromkeys(found)
    return tuple(kept)


def _is_kind(word: str) -> bool:
    return word in _KINDS or word.removesuffix("s") in _KINDS


def _phrases(words: list[str], terms: tuple[str, ...]) -> tuple[str, ...]:
    """Terms that are neighbours: `with statement`, `context manager`."""
    pairs = pairwise(words)
    return tuple(dict.fromkeys(f"{one} {two}" for one, two in pairs if {one, two} <= {*terms}))


def _is_follow_up(words: list[str], terms: tuple[str, ...]) -> bool:
    """It points back, goes on from something, or says too little to stand alone."""
    if not words:
        return False
    points = any(each in _POINTING for each in words)
    if words[0] in _JOINING or words[:2] in (["what", "about"], ["how", "about"]):
        return True
    return (points and len(terms) <= 2) or not terms
