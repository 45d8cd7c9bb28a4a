"""A small disk for the store of NATS, which can be filled: a tmpfs, where mounting is allowed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

_FILLER: Final = "filler"
_PIECE_BYTES: Final = 256 * 1024


class Disk:
    """A file system of its own, in memory."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path = path
        self._size_bytes = size_bytes

    def mount(self) -> bool:
        """Whether it could be mounted."""
        self._path.mkdir(parents=True, exist_ok=True)
        options = f"size={self._size_bytes},mode=0700"
        return _run("mount", "-t", "tmpfs", "-o", options, "factorychain-chaos", str(self._path))

    def unmount(self) -> None:
        """Away with it, also if something still holds a file on it."""
        if not _run("umount", str(self._path)):
            _run("umount", "--lazy", str(self._path))

    @property
    def used_bytes(self) -> int:
        """By what is stored."""
        found = os.statvfs(self._path)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def fill(self) -> None:
        """Leave no room."""
        with (self._path / _FILLER).open("ab", buffering=0) as filler:
            try:
                while True:
                    os.posix_fallocate(
                        filler.fileno(), os.fstat(filler.fileno()).st_size, _PIECE_BYTES
                    )
            except OSError:
                pass  # full, up to less than a piece
            try:
                while filler.write(bytes(4096)):
                    pass
            except OSError:
                return

    def empty(self) -> None:
        """Give the room back."""
        (self._path / _FILLER).unlink(missing_ok=True)


def _run(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
