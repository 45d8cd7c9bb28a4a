"""Whether NATS has found no room on its disk, and whether there is some again.

nats-server stores nothing more once a write of its has failed, until it is started again (nats-server#7788),
and it is no use to do that before there is room. What it has met stands in its log, unless it hangs: then
that its disk was full has to do.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ROOM_BYTES: Final = 32 * 1024 * 1024
"""With less than that it would soon find none again."""
FULL_BYTES: Final = 256 * 1024
"""With less than that it may have found none."""
_FOUND_NONE: Final = b"no space left on device"
_CHUNK_BYTES: Final = 1024 * 1024


class StoreRoom:
    """What one server has met since it was started."""

    def __init__(self, log: Path, store: Path) -> None:
        """`log`: what the server logs. `store`: a folder on its disk."""
        self._log = log
        self._store = store
        self._read_bytes = self._log_bytes()
        self._last = b""
        self._found_none = False

    def found_none(self) -> bool:
        """Whether it found no room, or may have."""
        self._found_none = self._found_none or self._free_bytes() < FULL_BYTES
        if self._log_bytes() < self._read_bytes:  # somebody has cut it
            self._read_bytes, self._last = 0, b""
        while not self._found_none and (read := self._next()):
            self._found_none = _FOUND_NONE in self._last + read
            self._last = (self._last + read)[-len(_FOUND_NONE) :]
        return self._found_none

    def has_room(self) -> bool:
        """Whether there is some now."""
        return self._free_bytes() >= ROOM_BYTES

    def forget(self) -> None:
        """It is started again."""
        self._read_bytes, self._last = self._log_bytes(), b""
        self._found_none = False

    def _free_bytes(self) -> int:
        """None also if there is no room for another file."""
        try:
            found = os.statvfs(self._store)
        except OSError:
            return 0
        has_names = found.f_favail > 0 or found.f_files == 0  # not every file system counts files
        return found.f_bavail * found.f_frsize if has_names else 0

    def _next(self) -> bytes:
        try:
            with self._log.open("rb") as log:
                log.seek(self._read_bytes)
                read = log.read(_CHUNK_BYTES)
        except OSError:
            return b""
        self._read_bytes += len(read)
        return read

    def _log_bytes(self) -> int:
        try:
            return self._log.stat().st_size
        except OSError:
            return 0
