"""The serving end: each call on the stream is handed to the method's own handler.

Invariants: what serves a carried call is the very handler that serves the method, with everything that
stands around it (credential, contract, span, errors); a call runs in a task and a context of its own;
the end of the stream cancels the calls on it; what is not begun is said to be not taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import grpc

from factorychain._core.carried.context import Aborted, CarriedContext
from factorychain._core.component import TaskSet
from factorychain._core.logging import get_logger
from factorychain.types.v1.calls_pb2 import (
    CallAnswer,
    CallBegin,
    CallEnd,
    CallFrame,
    CallNotTaken,
)

log = get_logger(__name__)

CALLS_MAX: Final = 4096
"""So many calls are in hand on one stream; others are to be made by themselves."""
MESSAGE_MAX: Final = 256
"""So many answers travel in one message."""
UNSENT_MAX: Final = 1024
"""A call waits with its next message while so many answers wait for a caller that does not read."""


class Frames(Protocol):
    """A message of the stream."""

    @property
    def frames(self) -> Sequence[CallFrame]: ...


class CarriedCalls:
    """Serves the streams of one server."""

    def __init__(
        self, handlers: Mapping[str, Any], response: Callable[[Sequence[CallAnswer]], Any]
    ) -> None:
        """`handlers`: the guarded handlers of the methods that may be carried, by path."""
        self._handlers = handlers
        self._response = response
        self._streams: dict[_Stream, None] = {}

    def drain(self) -> None:
        """Take no more calls; a stream ends when its last call has."""
        for stream in self._streams:
            stream.drain()

    async def serve(self, requests: AsyncIterator[Frames], context: object) -> AsyncIterator[Any]:
        """The body of the RPC: an empty response at once, so that the caller knows that it is
        connected, then answers.
        """
        stream = _Stream(self._handlers)
        self._streams[stream] = None
        stream.start(requests)
        try:
            yield self._response(())
            while await stream.answerable():
                yield self._response(stream.take())
        finally:
            self._streams.pop(stream, None)
            await stream.stop()


class _Stream:
    """One stream: a task that reads, and one for each call."""

    def __init__(self, handlers: Mapping[str, Any]) -> None:
        self._handlers = handlers
        self._tasks = TaskSet("carried calls")
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._answers: list[CallAnswer] = []
        self._wake = asyncio.Event()
        self._taken = asyncio.Event()
        self._no_more = False

    def start(self, requests: AsyncIterator[Frames]) -> None:
        _ = self._tasks.spawn(self._read(requests), "read")

    def drain(self) -> None:
        self._no_more = True
        self._wake.set()

    async def stop(self) -> None:
        await self._tasks.close()

    # --- what the caller says ---------------------------------------------------------------

    async def _read(self, requests: AsyncIterator[Frames]) -> None:
        try:
            async for message in requests:
                for frame in message.frames:
                    self._receive(frame)
        finally:
            self.drain()

    def _receive(self, frame: CallFrame) -> None:
        kind = frame.WhichOneof("frame")
        if kind == "begin":
            self._begin(frame.call, frame.begin)
        elif kind == "cancel":
            call = self._calls.get(frame.call)
            if call is not None:
                call.cancel()

    def _begin(self, number: int, begin: CallBegin) -> None:
        handler = self._handlers.get(begin.method)
        room = len(self._calls) < CALLS_MAX and number not in self._calls
        if handler is None or not room or self._no_more:
            self._answer(CallAnswer(call=number, not_taken=CallNotTaken()))
            return
        call = self._tasks.spawn(self._serve(number, begin, handler), begin.method)
        self._calls[number] = call
        call.add_done_callback(lambda done: self._over(number, done))
        if begin.timeout_ms:
            timer = asyncio.get_running_loop().call_later(begin.timeout_ms / 1000, call.cancel)
            call.add_done_callback(lambda _: timer.cancel())

    # --- calls ------------------------------------------------------------------------------

    async def _serve(self, number: int, begin: CallBegin, handler: Any) -> None:
        async def send(message: object) -> None:
            while len(self._answers) >= UNSENT_MAX:
                self._taken.clear()
                await self._taken.wait()
            payload = handler.response_serializer(message)
            self._answer(CallAnswer(call=number, message=payload))

        context = CarriedContext(begin, send)
        try:
            request = handler.request_deserializer(begin.request)
            if handler.response_streaming:
                await handler.unary_stream(request, context)
            else:
                await send(await handler.unary_unary(request, context))
        except Aborted as aborted:
            self._end(number, aborted.code, aborted.text, aborted.details)
        else:
            self._end(number, grpc.StatusCode.OK)

    def _over(self, number: int, done: asyncio.Task[None]) -> None:
        """However the call's task ended, its caller is told."""
        del self._calls[number]
        if done.cancelled():
            self._end(number, grpc.StatusCode.CANCELLED)
        elif done.exception() is not None:  # heard by the set of tasks
            self._end(number, grpc.StatusCode.UNKNOWN)
        self._wake.set()

    def _end(
        self, number: int, code: grpc.StatusCode, text: str = "", details: bytes = b""
    ) -> None:
        end = CallEnd(code=code.value[0], message=text, details=details)
        self._answer(CallAnswer(call=number, end=end))

    # --- what the caller hears --------------------------------------------------------------

    def _answer(self, answer: CallAnswer) -> None:
        self._answers.append(answer)
        self._wake.set()

    async def answerable(self) -> bool:
        """Waits for answers; False when there will be none any more."""
        while not self._answers:
            if self._no_more and not self._calls:
                return False
            self._wake.clear()
            await self._wake.wait()
        return True

    def take(self) -> Sequence[CallAnswer]:
        answers, self._answers = self._answers[:MESSAGE_MAX], self._answers[MESSAGE_MAX:]
        self._taken.set()
        return answers


class CarriesCalls:
    """Base of a servicer whose server carries calls to it (`GrpcServer`)."""

    def CarryCalls(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802 - the name in the proto
        """Never served: the server answers this method itself."""
        raise NotImplementedError("GrpcServer carries the calls of this service")
