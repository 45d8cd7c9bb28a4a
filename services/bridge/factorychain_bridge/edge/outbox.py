"""What one socket has yet to be sent, bounded in bytes.

Invariant: what is counted is exactly what is queued, held back or being written. Overflow is never a
drop: the caller closes the socket as too slow, and the client resumes from its last seq.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Pong(bytes):
    """The payload of a WebSocket pong, among the text frames."""


class Outbox:
    """A queue of frames with one reader, the socket's writer."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._size_bytes = 0
        self._frames: deque[bytes] = deque()
        self._filled = asyncio.Event()
        self._roomy = asyncio.Event()
        self._roomy.set()
        self.closed = False

    @property
    def size_bytes(self) -> int:
        """How much is queued, held back or being written."""
        return self._size_bytes

    def __len__(self) -> int:
        return len(self._frames)

    # --- filling -------------------------------------------------------------------------------

    def put(self, frame: bytes) -> bool:
        """Queue a frame; False if there is no room for it."""
        if not self.reserve(len(frame)):
            return False
        self.put_reserved(frame)
        return True

    def reserve(self, size_bytes: int) -> bool:
        """Count a frame that is queued later; False if there is no room for it.

        One frame larger than the whole limit is taken when nothing else is there: it could not be
        sent at all otherwise.
        """
        if self.closed or (self._size_bytes and self._size_bytes + size_bytes > self._limit_bytes):
            return False
        self._size_bytes += size_bytes
        if 2 * self._size_bytes > self._limit_bytes:
            self._roomy.clear()
        return True

    def put_reserved(self, frame: bytes) -> None:
        """Queue a frame that was counted by `reserve`."""
        if self.closed:
            return
        self._frames.append(frame)
        self._filled.set()

    def done(self, size_bytes: int) -> None:
        """A frame was written, or a reserved one is not needed."""
        self._size_bytes -= size_bytes
        if 2 * self._size_bytes <= self._limit_bytes:
            self._roomy.set()

    # --- emptying ------------------------------------------------------------------------------

    def next(self) -> bytes | None:
        """The frame to write now; its bytes count until `done`."""
        if self._frames:
            return self._frames.popleft()
        self._filled.clear()
        return None

    async def wait(self) -> None:
        """Wait until there is a frame, or no more will come."""
        await self._filled.wait()

    async def room(self) -> None:
        """Wait until at least half of the limit is free, or the outbox is closed."""
        await self._roomy.wait()

    def close(self) -> None:
        """Take no more. What is queued may still be written; who waits is woken."""
        self.closed = True
        self._filled.set()
        self._roomy.set()

    def clear(self) -> None:
        """Forget what is queued."""
        for frame in self._frames:
            self._size_bytes -= len(frame)
        self._frames.clear()
