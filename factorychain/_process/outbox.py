"""What one side has to say, on its way into the socket.

Invariant: frames leave whole and in the order in which they were posted, from whichever thread, also
while the loop is held up by an agent's code. What the other side has not read yet waits here; how much
that can be is bounded by who posts: by the window of events, by waiting until it has left, and for what
nobody waits for by the limit here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Final

_LOOSE_MAX_BYTES: Final = 1024 * 1024
"""What may wait of things that nobody waits for: output, spans. More is dropped."""


class Outbox:
    """The writing end of a socket that does not block."""

    def __init__(self, end: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._end = end
        self._loop = loop
        self._lock = threading.Lock()
        self._waiting = bytearray()
        self._armed = False
        self._gone = False
        self._empty: list[asyncio.Future[None]] = []
        self.dropped = 0

    def post(self, frame: bytes, *, loose: bool = False) -> None:
        """Send a frame as soon as there is room; a loose one is dropped if too much waits."""
        with self._lock:
            if self._gone:
                return
            if loose and len(self._waiting) > _LOOSE_MAX_BYTES:
                self.dropped += 1
                return
            idle = not self._waiting
            self._waiting += frame
            if idle:
                self._send()
            if self._waiting and not self._armed:
                self._armed = True
                with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                    self._loop.call_soon_threadsafe(self._arm)

    async def flushed(self) -> None:
        """Return when everything is in the socket, or the other side is gone."""
        with self._lock:
            if not self._waiting or self._gone:
                return
            done: asyncio.Future[None] = self._loop.create_future()
            self._empty.append(done)
        await done

    def close(self) -> None:
        """Nothing more is sent. To be called in the loop's thread."""
        with self._lock:
            self._lost()
            if self._armed:
                self._armed = False
                self._loop.remove_writer(self._end)
        self._tell()

    def _send(self) -> None:
        try:
            sent = self._end.send(self._waiting)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # the other side is gone, which the reader hears
            self._lost()
            return
        del self._waiting[:sent]

    def _lost(self) -> None:
        self._gone = True
        self._waiting.clear()

    def _arm(self) -> None:
        if self._waiting:
            self._loop.add_writer(self._end, self._writable)
        else:
            self._armed = False

    def _writable(self) -> None:
        with self._lock:
            self._send()
            if self._waiting:
                return
            self._armed = False
            self._loop.remove_writer(self._end)
        self._tell()

    def _tell(self) -> None:
        told, self._empty = self._empty, []
        for each in told:
            if not each.done():
                each.set_result(None)
