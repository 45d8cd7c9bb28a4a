"""A directory for each run process, gone when it is.

Invariant: nothing is left of a process's directory after its end, however deep, wide or locked it made it;
what a killed service left is removed by the next one that starts here. No run can guess what another one's
is called: Landlock, which keeps it from reading there, does not keep it from asking for a size.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from factorychain._core.logging import get_logger
from factorychain._process.control import Place

log = get_logger(__name__)

_PREFIX: Final = "factorychain-runs-"
_LOCK: Final = "lock"
_NAME_BYTES: Final = 8


class RunDirectories:
    """A component: the folder that holds them, below the system's temporary one."""

    name = "run directories"

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent or Path(tempfile.gettempdir())
        self._root: Path | None = None
        self._lock = -1
        self._remover = ThreadPoolExecutor(1, "run directories")

    @property
    def healthy(self) -> bool:
        return True

    @property
    def own(self) -> Path:
        """Below it are those of processes: no run may read another one's."""
        return self._inside("own")

    @property
    def shared(self) -> Path:
        """Temporary files of the zygote: what it builds for all runs, these may read."""
        return self._inside("shared")

    def _inside(self, name: str) -> Path:
        assert self._root is not None, "start has made it"
        return self._root / name

    async def start(self) -> None:
        await asyncio.to_thread(self._sweep)
        self._root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent)).resolve()
        self._lock = _locked(self._root)
        self.own.mkdir(mode=0o700)
        self.shared.mkdir(mode=0o700)

    async def stop(self) -> None:
        if self._root is None:
            return
        root, self._root = self._root, None
        await asyncio.to_thread(self._remover.shutdown)
        await asyncio.to_thread(remove_tree, root)
        os.close(self._lock)

    def place(self, number: int) -> Place:
        """Where a new process may make its own."""
        return Place(number, str(self.own / secrets.token_hex(_NAME_BYTES)))

    def remove(self, place: Place) -> None:
        """Remove what a process has left, in the background: it may be any number of files."""
        _ = self._remover.submit(_removed, place)

    def _sweep(self) -> None:
        """Remove what services left that were killed."""
        for each in self._parent.glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):
                if each.is_symlink() or each.stat().st_uid != os.getuid():
                    continue
                lock = _locked(each)
                if lock >= 0:
                    remove_tree(each)
                    os.close(lock)


def _locked(root: Path) -> int:
    """A lock on the folder that lasts as long as this process; -1 if another one has it."""
    lock = os.open(root / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return -1
    return lock


def _removed(place: Place) -> None:
    try:
        if place.path.exists():
            remove_tree(place.path)
    except OSError as error:
        log.error("a run's directory was not removed", directory=place.directory, error=str(error))


def remove_tree(top: Path) -> None:
    """Remove a folder and everything in it, whatever its maker did to keep it.

    Without recursion, with one descriptor at a time, and never with a path longer than two names: folders
    inside are moved up next to `top` before they are emptied. Links are removed, never followed.
    """
    waiting, count = [top], 0
    while waiting:
        folder = waiting.pop()
        folder.chmod(0o700)
        with os.scandir(folder) as entries:
            for each in list(entries):
                if not each.is_dir(follow_symlinks=False):
                    Path(each.path).unlink(missing_ok=True)
                    continue
                count += 1
                aside = top.with_name(f"{top.name}.{count}")
                Path(each.path).chmod(0o700)  # else it cannot be moved: its `..` changes
                Path(each.path).rename(aside)
                waiting.append(aside)
        folder.rmdir()
