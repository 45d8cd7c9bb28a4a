"""What gRPC's calls are on the network of the simulation: frames, and a queue of what came.

Invariant: requests and answers cross as bytes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import grpc

Metadata = Sequence[tuple[str, str | bytes]]
OK = grpc.StatusCode.OK


class Begin(NamedTuple):
    """A call begins."""

    call: int
    path: str
    metadata: Metadata
    left_s: float | None
    data: bytes | None
    """The request, unless requests are streamed."""


class Message(NamedTuple):
    """One message, in either direction."""

    call: int
    data: bytes


class Half(NamedTuple):
    """The caller sends no more."""

    call: int


class Finish(NamedTuple):
    """The call is over; from the caller: it does not want it any more."""

    call: int
    code: grpc.StatusCode
    details: str = ""
    trailing: Metadata = ()
    data: bytes | None = None
    """The answer, if there is but one: gRPC sends both at once, too."""


class Incoming:
    """A queue of what comes until an end or an error."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._over = False
        self._error: BaseException | None = None

    def put(self, item: object) -> None:
        self._items.append(item)
        self._wake()

    def end(self, error: BaseException | None = None) -> None:
        if not self._over:
            self._over, self._error = True, error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> Any:
        """The next item, or `grpc.aio.EOF`; raises the error."""
        while not self._items:
            if self._over:
                if self._error is not None:
                    raise self._error
                return grpc.aio.EOF
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._items.popleft()

    async def iterate(self) -> AsyncIterator[Any]:
        while (item := await self.next()) is not grpc.aio.EOF:
            yield item
