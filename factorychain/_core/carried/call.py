"""A carried call, as whoever makes it sees it: messages, and an end.

Invariant: it ends once, and what came before its end is read before that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import grpc

from factorychain.types.v1.calls_pb2 import CallEnd

UNREAD_MAX: Final = 256
"""A call that leaves more messages unread is given up."""


class NotCarried(Exception):
    """The peer has not begun the call."""


class StreamBroke(Exception):
    """The stream ended before the call did."""


class CarriedCall:
    """One call on a stream. Read by one task."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel
        self._unread: deque[bytes] = deque()
        self._end: CallEnd | Exception | None = None
        self._change: asyncio.Future[None] | None = None

    @property
    def over(self) -> bool:
        return self._end is not None

    async def next(self) -> bytes | CallEnd:
        """The next message, or the end.

        Raises:
            NotCarried: the peer has not begun it.
            StreamBroke: nobody knows.
        """
        while not self._unread and self._end is None:
            self._change = asyncio.get_running_loop().create_future()
            await self._change
        if self._unread:
            return self._unread.popleft()
        if isinstance(self._end, CallEnd):
            return self._end
        assert self._end is not None, "waited for above"
        raise self._end

    def cancel(self) -> None:
        """Not waited for any more."""
        if self._end is None:
            self._cancel()
            self.ended(CallEnd(code=grpc.StatusCode.CANCELLED.value[0]))

    # --- what the stream says ---------------------------------------------------------------

    def received(self, message: bytes) -> None:
        self._unread.append(message)
        self._changed()
        if len(self._unread) > UNREAD_MAX:
            self.cancel()

    def ended(self, end: CallEnd | Exception) -> None:
        if self._end is None:
            self._end = end
            self._changed()

    def _changed(self) -> None:
        if self._change is not None and not self._change.done():
            self._change.set_result(None)
