"""The agent that looks a question up: search, read, quote.

It invents nothing: every sentence about the subject is a quotation with its place, and when the
documents do not answer, it says so.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

from factorychain.agent import Agent
from factorychain.builtin.researcher.answer import Quote, Verdict, compose, decline, judge, quote
from factorychain.builtin.researcher.documents import language_reference, read_folder
from factorychain.builtin.researcher.index import DocumentIndex
from factorychain.builtin.researcher.library import DocumentLibrary, Passage, Section
from factorychain.builtin.researcher.question import Question, points_back, understand
from factorychain.context import RunContext
from factorychain.errors import ToolError
from factorychain.providers import shared
from factorychain.tools import tool

DOCS_DIR = "FACTORYCHAIN_DOCS_DIR"
"""The folder of documents; without it the language reference is searched."""

_MOST_PACE_MS = 1000.0


class Researcher(Agent):
    """Answers questions from a folder of documents, or from the Python language reference, with quotations."""

    name = "researcher"
    repeat_safe = True

    def __init__(self, library: DocumentLibrary) -> None:
        self.library = library

    @tool
    def search(self, query: str, limit: int = 5) -> list[Passage]:
        """Find the passages that say most about the words of a query; "in quotes" for a phrase."""
        return self.library.find(query, limit)

    @tool
    def read(self, document: str, line: int) -> Section:
        """Read the section of a document that a line is in."""
        section = self.library.read(document, line)
        if section is None:
            raise ToolError(f"there is no section at line {line} of {document}", "NOT_FOUND")
        return section

    async def run(self, ctx: RunContext, text: str) -> str:
        question = await self._understand(ctx, text)
        passages: list[Passage] = []
        verdict = Verdict(answered=False, missing=())
        if question.words:
            await ctx.think(f"Looking for passages about {', '.join(question.words)}")
            phrases = "".join(f' "{each}"' for each in question.phrases)
            passages = await ctx.call(self.search, query=question.query + phrases, limit=8)
            weights, known = await asyncio.to_thread(self._weigh, question.words)
            verdict = judge(question, passages, weights, known)
        about = self.library.index.about
        if not verdict.answered:
            await ctx.think("The documents do not seem to answer this")
            return await self._stream(ctx, decline(question, verdict, passages, about))
        quotes = [each async for each in self._read(ctx, verdict)]
        await ctx.think(f"Quoting {len(quotes)} passage{'s' if len(quotes) > 1 else ''}")
        return await self._stream(ctx, compose(question, verdict, quotes, about))

    async def _understand(self, ctx: RunContext, text: str) -> Question:
        if not points_back(text):
            return understand(text)
        before = [each.input.text for each in await ctx.history(limit=10)]
        return understand(text, before)

    def _weigh(self, words: tuple[str, ...]) -> tuple[dict[str, float], dict[str, bool]]:
        return self.library.weights(words), self.library.known(words)

    async def _read(self, ctx: RunContext, verdict: Verdict) -> AsyncIterator[Quote]:
        for at, each in enumerate(verdict.passages):
            heading = f"“{each.heading}” in " if each.heading else ""
            await ctx.think(f"Reading {heading}{each.document}")
            section = await ctx.call(self.read, document=each.document, line=each.line)
            yield quote(section, each, first=at == 0)

    async def _stream(self, ctx: RunContext, pieces: Iterable[str]) -> str:
        pace_s = _pace_s(ctx)
        async with ctx.message() as message:
            for piece in _by_words(pieces) if pace_s else pieces:
                await message.write(piece)
                if pace_s:
                    await asyncio.sleep(pace_s)
        return message.text


def _pace_s(ctx: RunContext) -> float:
    """A client may ask for the answer at reading pace: metadata `pace_ms`, the pause after each word."""
    wanted = ctx.metadata.get("pace_ms", 0)
    if isinstance(wanted, bool) or not isinstance(wanted, int | float):
        return 0.0
    return min(max(float(wanted), 0.0), _MOST_PACE_MS) / 1000


def _by_words(pieces: Iterable[str]) -> Iterator[str]:
    for piece in pieces:
        yield from re.findall(r"\s*\S+\s*", piece) or [piece]


@shared
async def index() -> AsyncIterator[DocumentIndex]:
    """The documents that the process was configured with, indexed once."""
    folder = os.environ.get(DOCS_DIR, "")
    if folder:
        documents = await asyncio.to_thread(read_folder, Path(folder))
        built = await DocumentIndex.build(documents, "the documents")
    else:
        documents = await asyncio.to_thread(language_reference)
        built = await DocumentIndex.build(documents, "the topics of the Python language reference")
    try:
        yield built
    finally:
        built.remove()


def library(index: DocumentIndex) -> Iterator[DocumentLibrary]:
    """A connection of the run's own."""
    opened = DocumentLibrary(index)
    try:
        yield opened
    finally:
        opened.close()


providers = [index, library]
