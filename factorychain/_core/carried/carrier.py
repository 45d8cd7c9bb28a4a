"""The calling end: streams to a peer that are kept open, and the calls on them.

Invariants: a call is carried only on a stream on which the peer has answered; one that the peer has not
taken, or could not have begun, says so, and whoever made it makes it by itself; when a stream ends,
every call on it does.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final, Protocol

import grpc

from factorychain._core.carried.breaks import Breaks
from factorychain._core.carried.call import CarriedCall, NotCarried, StreamBroke
from factorychain._core.component import TaskSet, detached
from factorychain._core.link.run import backoff_s
from factorychain._core.logging import get_logger
from factorychain.types.v1.calls_pb2 import CallAnswer, CallBegin, CallCancel, CallFrame

log = get_logger(__name__)

AGE_S: Final = 60.0
"""After about so long a stream is replaced, so that calls are spread again over who serves by then."""
UNKNOWN_FOR_S: Final = 60.0
"""A peer of before this method is asked again after so long."""
QUEUED_MAX_BYTES: Final = 512 * 1024
"""Above this a stream that the peer does not read takes no calls."""


class Answers(Protocol):
    """A message of the stream."""

    @property
    def answers(self) -> Sequence[CallAnswer]: ...


class FrameStream(Protocol):
    """The bidirectional call (`grpc.aio.StreamStreamCall`)."""

    def __aiter__(self) -> AsyncIterator[Answers]: ...

    async def write(self, request: object) -> None: ...

    async def done_writing(self) -> None: ...

    def cancel(self) -> bool: ...


class CallCarrier:
    """A component: keeps `count` streams open, which calls take in turn."""

    name = "carried calls"

    def __init__(
        self,
        stream: Callable[[], FrameStream],
        request: Callable[[Sequence[CallFrame]], object],
        count: int,
        peer: str,
    ) -> None:
        """Several streams are spread over the replicas of `peer`, and replaced now and then."""
        self._streams = deque(
            _Stream(stream, request, Breaks(peer), ages=count > 1) for _ in range(count)
        )
        self._tasks = TaskSet(self.name)

    @property
    def healthy(self) -> bool:
        return self._tasks.healthy

    @property
    def ready(self) -> bool:
        """Whether a call would be carried now."""
        return any(each.ready for each in self._streams)

    async def start(self) -> None:
        """Starts connecting, and does not wait for the peer. May be called again."""
        if len(self._tasks):
            return
        for each in self._streams:
            _ = self._tasks.spawn(each.run(), "stream")

    async def stop(self) -> None:
        await self._tasks.close()

    def begin(
        self, method: str, request: bytes, metadata: Mapping[str, str], timeout_s: float | None
    ) -> CarriedCall | None:
        """The call, on its way; None: no stream can take it now."""
        for _ in range(len(self._streams)):
            stream = self._streams[0]
            self._streams.rotate(-1)
            if stream.ready:
                timeout_ms = 0 if timeout_s is None else max(1, int(timeout_s * 1000))
                begin = CallBegin(
                    method=method, request=request, metadata=metadata, timeout_ms=timeout_ms
                )
                return stream.begin(begin)
        return None


class _Stream:
    """One stream after another."""

    def __init__(
        self,
        stream: Callable[[], FrameStream],
        request: Callable[[Sequence[CallFrame]], object],
        breaks: Breaks,
        *,
        ages: bool,
    ) -> None:
        self._stream = stream
        self._request = request
        self._breaks = breaks
        self._ages = ages
        self._up = False
        self._up_since_s = 0.0
        self._retiring = False
        self._queued: deque[CallFrame] = deque()
        self._queued_bytes = 0
        self._calls: dict[int, CarriedCall] = {}
        self._last = 0
        self._wake = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether a call may be begun on it."""
        return self._up and not self._retiring and self._queued_bytes < QUEUED_MAX_BYTES

    def begin(self, begin: CallBegin) -> CarriedCall:
        self._last += 1
        number = self._last
        call = self._calls[number] = CarriedCall(lambda: self._cancel(number))
        self._put(CallFrame(call=number, begin=begin), len(begin.request))
        return call

    def _cancel(self, number: int) -> None:
        if self._calls.pop(number, None) is not None:
            self._put(CallFrame(call=number, cancel=CallCancel()), 0)

    def _put(self, frame: CallFrame, size: int) -> None:
        self._queued.append(frame)
        self._queued_bytes += size
        self._wake.set()

    # --- the stream -------------------------------------------------------------------------

    async def run(self) -> None:
        failures = 0
        while True:
            try:
                was_up = await self._one_stream()
            except grpc.aio.AioRpcError as error:
                was_up = False
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    await asyncio.sleep(UNKNOWN_FOR_S)
            failures = 0 if was_up else failures + 1
            await asyncio.sleep(backoff_s(failures))

    async def _one_stream(self) -> bool:
        """Until the stream has ended; whether the peer had answered on it.

        Raises:
            AioRpcError: it never did.
        """
        call = self._stream()
        # In contexts of their own: nobody's identity stays in them.
        reader = detached(self._read(call), name="carried calls:read")
        writer = detached(self._write(call), name="carried calls:write")
        aged = asyncio.get_running_loop().call_later(AGE_S * random.uniform(0.8, 1.2), self._retire)
        try:
            await asyncio.wait({reader})
            error = None if reader.cancelled() else reader.exception()
            self._tell(error)
            if error is not None and not self._up:
                raise error
            return self._up
        finally:
            aged.cancel()
            self._forget()
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
            call.cancel()

    def _tell(self, error: BaseException | None) -> None:
        is_old = isinstance(error, grpc.aio.AioRpcError) and (
            error.code() is grpc.StatusCode.UNIMPLEMENTED
        )
        up_s = asyncio.get_running_loop().time() - self._up_since_s if self._up else None
        self._breaks.ended(None if is_old else error, up_s=up_s, calls=len(self._calls))

    def _forget(self) -> None:
        """What was on the stream has ended with it."""
        self._up = self._retiring = False
        begun = {each.call for each in self._queued if each.HasField("begin")}
        self._queued.clear()
        self._queued_bytes = 0
        calls, self._calls = self._calls, {}
        for number, call in calls.items():
            call.ended(NotCarried() if number in begun else StreamBroke())

    def _retire(self) -> None:
        self._retiring = self._ages
        self._wake.set()

    async def _read(self, call: FrameStream) -> None:
        async for message in call:
            if not self._up:
                self._up, self._up_since_s = True, asyncio.get_running_loop().time()
            for answer in message.answers:
                self._answered(answer)
            if self._retiring:
                self._wake.set()

    def _answered(self, answer: CallAnswer) -> None:
        call = self._calls.get(answer.call)
        if call is None:
            return  # it was cancelled
        kind = answer.WhichOneof("answer")
        if kind == "message":
            call.received(answer.message)
        else:
            self._calls.pop(answer.call, None)
            call.ended(answer.end if kind == "end" else NotCarried())

    async def _write(self, call: FrameStream) -> None:
        try:
            while not (self._retiring and not self._calls and not self._queued):
                if self._queued:
                    await call.write(self._request(self._take()))
                else:
                    self._wake.clear()
                    await self._wake.wait()
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the reader hears why

    def _take(self) -> list[CallFrame]:
        taken = list(self._queued)
        self._queued.clear()
        self._queued_bytes = 0
        return taken
