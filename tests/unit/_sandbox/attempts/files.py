"""Files and folders, inside and outside of the run's own. Each attempt does one thing, and returns what a test looks at or lets its error out."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path


def read(path: str) -> str:
    return Path(path).read_text()


def write(path: str) -> str:
    Path(path).write_text("written")
    return Path(path).read_text()


def listing(path: str) -> list[str]:
    return sorted(each.name for each in Path(path).iterdir())


def remove(path: str) -> None:
    Path(path).unlink()


def rename(source: str, target: str) -> None:
    Path(source).rename(target)


def link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def truncate(path: str) -> None:
    os.truncate(path, 0)


def open_truncating(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_TRUNC))


def change_mode(path: str) -> None:
    Path(path).chmod(0)
    os.utime(path, (0, 0))
    os.chown(path, 1, 1)


def set_attribute(path: str) -> None:
    os.setxattr(path, "user.mark", b"1")


def open_database(path: str) -> None:
    sqlite3.connect(path).execute("create table t (x)")


def work_in_own_folder() -> list[str]:
    """What libraries do with files: nested folders, copies, moves, temporary files, a database."""
    Path("a/b").mkdir(parents=True)
    Path("a/b/file").write_text("text")
    shutil.copy2("a/b/file", "a/copy")
    shutil.copytree("a", "tree")
    Path("a/b/file").rename("moved")
    os.truncate("moved", 1)
    Path("symlink").symlink_to("moved")
    with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile(dir=folder) as file:
        assert Path(file.name).is_relative_to(Path.cwd())
    with contextlib.closing(sqlite3.connect("data.db")) as database:
        database.execute("pragma journal_mode = wal")
        database.execute("create table t (x)")
        database.execute("insert into t values (1)")
        database.commit()
        assert database.execute("select * from t").fetchall() == [(1,)]
    shutil.rmtree("tree")
    return sorted(each.name for each in Path.cwd().iterdir())


def raise_wrapped(path: str) -> None:
    """As a library does that hides what it met."""
    try:
        read(path)
    except PermissionError as error:
        raise RuntimeError("could not load") from error
