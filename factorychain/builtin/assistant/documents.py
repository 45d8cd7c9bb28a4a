"""Looking things up in the operator's folder of documents, for a model: with the researcher's own index."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from factorychain.builtin.researcher.agent import DOCS_DIR
from factorychain.builtin.researcher.index import DocumentIndex
from factorychain.builtin.researcher.library import DocumentLibrary, Passage, Section
from factorychain.errors import ToolError
from factorychain.tools import tool

GIVEN: Final = bool(os.environ.get(DOCS_DIR))
"""Whether the operator has given documents: without, the assistant has no tools for them."""


class Documents:
    """What one run can look up."""

    def __init__(self, library: DocumentLibrary | None = None) -> None:
        """None: there are no documents."""
        self._library = library

    @property
    def library(self) -> DocumentLibrary:
        """Where to look.

        Raises:
            ToolError: there are no documents.
        """
        if self._library is None:
            raise ToolError("There are no documents here", "NO_DOCUMENTS")
        return self._library


class DocumentTools:
    """The researcher's own tools, under names that say enough beside any other."""

    @property
    def library(self) -> DocumentLibrary:
        raise NotImplementedError

    @tool
    def search_documents(self, query: str, limit: int = 5) -> list[Passage]:
        """Find the passages that say most about the words of a query; "in quotes" for a phrase."""
        return self.library.find(query, limit)

    @tool
    def read_document(self, document: str, line: int) -> Section:
        """Read the section of a document that a line is in; search_documents names both."""
        section = self.library.read(document, line)
        if section is None:
            raise ToolError(f"there is no section at line {line} of {document}", "NOT_FOUND")
        return section


def no_documents() -> Documents:
    """Provided where the operator has given none."""
    return Documents()


def documents(index: DocumentIndex) -> Iterator[Documents]:
    """A connection of the run's own."""
    opened = DocumentLibrary(index)
    try:
        yield Documents(opened)
    finally:
        opened.close()
