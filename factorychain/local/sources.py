"""Tells when a source file of the agents has changed, for `up --reload`.

Invariant: a change is told once it has settled, however a file was changed: written, replaced by another
one, renamed or removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final, TypeAlias

# More files than these are somebody's home, or a system: looking at them all would take its time.
MOST_FILES: Final = 5_000
_SKIPPED: Final = frozenset({"node_modules", "site-packages", "dist-packages"})

Snapshot: TypeAlias = Mapping[Path, tuple[int, int, int]]


class TooManyFiles(Exception):
    """There is more below a folder than can be watched; the message names it."""


def agent_sources(
    modules: Sequence[str], folder: Path, path: Sequence[str] | None = None
) -> list[Path]:
    """Where the code of `MODULE[:NAME]`s is: the module's file, or its package's folder.

    Nothing is imported. What is not found is left out: whoever imports it says so.

    Args:
        modules: as given to `--agents`.
        folder: where agents are looked up first.
        path: where they are looked up then; PYTHONPATH and what is installed if not given.
    """
    if path is None:
        path = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), *sys.path]
    found: dict[Path, None] = {}
    for each in modules:
        top = each.partition(":")[0].partition(".")[0]
        spec = PathFinder.find_spec(top, [str(folder), *filter(None, path)])
        if spec is not None and spec.submodule_search_locations:
            found |= dict.fromkeys(Path(each).resolve() for each in spec.submodule_search_locations)
        elif spec is not None and spec.origin:
            found[Path(spec.origin).resolve()] = None
    return list(found)


class SourceWatcher:
    """Watches Python files: single ones, and those below folders."""

    def __init__(self, roots: Sequence[Path], *, interval_s: float = 0.5) -> None:
        """Look for the first time.

        Raises:
            TooManyFiles: below one of the folders.
        """
        self._roots = tuple(roots)
        self._interval_s = interval_s
        self._seen = self._settled = snapshot(self._roots)

    async def run(self, changed: Callable[[Path], None]) -> None:
        """Look until cancelled; `changed` is told of one file of each change."""
        while True:
            await asyncio.sleep(self._interval_s)
            with contextlib.suppress(TooManyFiles):  # they may have been somebody's passing work
                file = self.look(await asyncio.to_thread(snapshot, self._roots))
                if file is not None:
                    changed(file)

    def look(self, now: Snapshot) -> Path | None:
        """A file that has changed, once two looks agree on how it is now."""
        agreed, self._seen = now == self._seen, now
        if not agreed or now == self._settled:
            return None
        before, self._settled = self._settled, now
        return _difference(before, now)


def snapshot(roots: Sequence[Path]) -> Snapshot:
    """Every file's time, size and identity.

    Raises:
        TooManyFiles: below one of the folders.
    """
    found: dict[Path, tuple[int, int, int]] = {}
    for root in roots:
        for path in _files(root):
            with contextlib.suppress(OSError):  # it is being replaced, or was a broken link
                status = path.stat()
                found[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
        if len(found) > MOST_FILES:
            raise TooManyFiles(f"{root} has more than {MOST_FILES} Python files below it")
    return found


def _files(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        yield root
        return
    count = 0
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if _is_own(Path(folder), name)]
        for name in files:
            if name.endswith(".py"):
                yield Path(folder) / name
        count += len(names) + len(files)
        if count > MOST_FILES * 10:
            raise TooManyFiles(f"{root} has more than {MOST_FILES * 10} files below it")


def _is_own(folder: Path, name: str) -> bool:
    """Not hidden, not of an environment."""
    hidden = name.startswith((".", "__")) or name in _SKIPPED
    return not hidden and not (folder / name / "pyvenv.cfg").exists()


def _difference(before: Snapshot, now: Snapshot) -> Path:
    changed = dict(set(before.items()) ^ set(now.items()))
    # One that is there says more than one that is gone.
    return min(changed, key=lambda path: (path not in now, path))
