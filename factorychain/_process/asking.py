"""Requests of an instance to the service, and who waits for their answers.

Invariant: no more of them are under way than the service takes, so that what an agent asks too much
waits in the agent; each is answered once, or forgotten on both sides when nobody waits any more.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from factorychain._process.asked import Asked, pack_asked, unpack_problem
from factorychain._process.messages import number
from factorychain._process.wire import (
    BODIES_MAX_BYTES,
    REQUEST_BODY_MAX_BYTES,
    REQUESTS_MAX,
    FromInstance,
    frame,
)
from factorychain.errors import RunEnded
from factorychain.input import Json


class Posting(Protocol):
    """Sends frames: an `Outbox`."""

    def post(self, frame: bytes, *, loose: bool = False) -> None: ...


@dataclass(slots=True)
class _UnderWay:
    body_bytes: int
    parts: list[bytes] = field(default_factory=list)
    done: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Asking:
    """The requests of one instance."""

    def __init__(self, outbox: Posting) -> None:
        self._outbox = outbox
        self._under_way: dict[int, _UnderWay] = {}
        self._body_bytes = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._last = 0
        self._closed = False

    async def ask(self, call: str, body: bytes = b"", /, **arguments: Json) -> list[bytes]:
        """Ask the service; the parts of its answer.

        Args:
            call: what is wanted; the service knows it by this name.
            body: bytes beside the arguments.
            arguments: plain values.

        Raises:
            RunEnded: the run is over.
            ValueError: the body is larger than one may be.
            FactoryChainError: what the service met.
        """
        if len(body) > REQUEST_BODY_MAX_BYTES:
            raise ValueError(f"{call}: {len(body)} bytes; at most {REQUEST_BODY_MAX_BYTES}")
        await self._room_for(len(body))
        self._last += 1
        request = self._last
        asked = frame(FromInstance.REQUEST, pack_asked(request, Asked(call, arguments, body)))
        answer = self._begin(request, len(body))
        try:
            self._outbox.post(asked)
            await answer.done
            return answer.parts
        except asyncio.CancelledError:
            self._outbox.post(frame(FromInstance.FORGET, number(request)))
            raise
        finally:
            self._end(request)

    def part(self, request: int, part: bytes) -> None:
        """One part of an answer."""
        answer = self._under_way.get(request)
        if answer is not None:
            answer.parts.append(part)

    def end(self, request: int, problem: bytes) -> None:
        """An answer is whole, or there is none."""
        answer = self._under_way.get(request)
        if answer is None or answer.done.done():
            return
        if problem:
            answer.done.set_exception(unpack_problem(problem))
        else:
            answer.done.set_result(None)

    def close(self) -> None:
        """Nothing is answered any more."""
        self._closed = True
        for each in self._under_way.values():
            if not each.done.done():
                each.done.set_exception(RunEnded())
        self._wake()

    async def _room_for(self, body_bytes: int) -> None:
        while not self._closed and (
            len(self._under_way) >= REQUESTS_MAX or self._body_bytes + body_bytes > BODIES_MAX_BYTES
        ):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        if self._closed:
            raise RunEnded("the run is over; nothing more can begin in it")

    def _begin(self, request: int, body_bytes: int) -> _UnderWay:
        self._body_bytes += body_bytes
        answer = self._under_way[request] = _UnderWay(body_bytes)
        return answer

    def _end(self, request: int) -> None:
        ended = self._under_way.pop(request)
        if ended.done.done() and not ended.done.cancelled():
            ended.done.exception()  # seen, also if who waited was cancelled at the same moment
        self._body_bytes -= ended.body_bytes
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for each in waiters:
            if not each.done():
                each.set_result(None)
