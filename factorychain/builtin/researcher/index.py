"""The full-text index: built once, read by every run through a connection of its own.

SQLite FTS5 with BM25, in a file that is complete before anybody reads it and never changes after.
"""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from factorychain.builtin.researcher.documents import Document, parse

_PREFIX = "factorychain-researcher-"
_LOCK = "lock"
_SCHEMA = """
CREATE TABLE documents (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE sections (
    id INTEGER PRIMARY KEY, document INTEGER NOT NULL, heading TEXT NOT NULL, line INTEGER NOT NULL
);
CREATE TABLE passages (
    id INTEGER PRIMARY KEY, section INTEGER NOT NULL, line INTEGER NOT NULL, text TEXT NOT NULL
);
CREATE INDEX passages_of_section ON passages (section);
CREATE INDEX sections_of_document ON sections (document);
CREATE VIRTUAL TABLE words USING fts5 (
    name, heading, body, content='', tokenize="porter unicode61 remove_diacritics 2"
);
"""


@dataclass(frozen=True, slots=True)
class DocumentIndex:
    """A finished index."""

    path: Path
    documents: int
    passages: int
    about: str
    """What the documents are, for people."""
    lock: mmap.mmap
    """Says that the folder is in use."""

    @classmethod
    async def build(cls, documents: Iterable[Document], about: str) -> DocumentIndex:
        """Index documents into a temporary file; `remove` deletes it."""
        return await asyncio.to_thread(cls._build, list(documents), about)

    @classmethod
    def _build(cls, documents: list[Document], about: str) -> DocumentIndex:
        folder, lock = private_folder()
        path = folder / "index.sqlite"
        try:
            with closing(sqlite3.connect(path)) as database:
                database.executescript(_SCHEMA)
                passages = _fill(database, documents)
                database.execute("INSERT INTO words (words) VALUES ('optimize')")
                database.commit()
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            lock.close()
            raise
        return cls(path, len(documents), passages, about, lock)

    def connect(self) -> sqlite3.Connection:
        """A connection that can only read. It may be used in any thread, by one at a time."""
        address = f"{self.path.as_uri()}?mode=ro&immutable=1"
        return sqlite3.connect(address, uri=True, check_same_thread=False)

    def remove(self) -> None:
        """Delete the file; connections that are open keep reading it."""
        shutil.rmtree(self.path.parent, ignore_errors=True)
        self.lock.close()


def private_folder() -> tuple[Path, mmap.mmap]:
    """A new folder for an index, and its lock, to be kept for as long as it is used.

    The lock is on a file that is mapped and not open: forked processes keep it too, which close every
    descriptor. Folders of processes that were killed are removed on this occasion: whose lock can be taken.
    """
    parent = Path(tempfile.gettempdir())
    for left in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        _remove_if_left(left)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    unlocked = folder / f"{_LOCK}.new"
    lock = os.open(unlocked, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.write(lock, b"\n")
    mapped = mmap.mmap(lock, 1)
    os.close(lock)
    unlocked.rename(folder / _LOCK)  # only now, or another process could take it for left behind
    return folder, mapped


def _remove_if_left(path: Path) -> None:
    try:
        lock = os.open(path, os.O_RDWR)
    except OSError:  # gone meanwhile, or somebody else's
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        shutil.rmtree(path.parent, ignore_errors=True)
    finally:
        os.close(lock)


def _fill(database: sqlite3.Connection, documents: list[Document]) -> int:
    # References repeat whole sections in several documents: the shortest is the one about it.
    seen: set[str] = set()
    passages = 0
    for document in sorted(documents, key=lambda each: (len(each.text), each.name)):
        name = _insert(database, "documents (name)", document.name)
        for section in parse(document):
            fresh = [each for each in section.passages if each.text not in seen]
            seen.update(each.text for each in fresh)
            if not fresh:
                continue
            parent = _insert(
                database, "sections (document, heading, line)", name, section.heading, section.line
            )
            for each in fresh:
                row = _insert(
                    database, "passages (section, line, text)", parent, each.line, each.text
                )
                database.execute(
                    "INSERT INTO words (rowid, name, heading, body) VALUES (?, ?, ?, ?)",
                    (row, document.name, section.heading, each.text),
                )
                passages += 1
    return passages


def _insert(database: sqlite3.Connection, into: str, *values: object) -> int:
    marks = ", ".join("?" * len(values))
    row = database.execute(f"INSERT INTO {into} VALUES ({marks})", values).lastrowid  # noqa: S608
    assert row is not None
    return row
