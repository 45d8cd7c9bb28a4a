"""The agent `researcher`: answers questions from a folder of documents, in the documents' own words."""

from factorychain.builtin.researcher.agent import Researcher, providers
from factorychain.builtin.researcher.index import DocumentIndex
from factorychain.builtin.researcher.library import DocumentLibrary, Passage, Section

__all__ = ["DocumentIndex", "DocumentLibrary", "Passage", "Researcher", "Section", "providers"]
