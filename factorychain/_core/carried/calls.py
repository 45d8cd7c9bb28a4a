"""Calls that are carried where they can be, and made by themselves where not.

Invariants: to whoever makes a call it is the same both ways, errors and deadline included; a call is
made again by itself only if the peer has not begun it, or if its proto says that repeating is safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from typing import Any, Final, Generic, TypeVar

import grpc

from factorychain._core.carried.call import CarriedCall, NotCarried, StreamBroke
from factorychain._core.carried.carrier import CallCarrier
from factorychain._core.status import DETAILS_KEY
from factorychain.types.v1.calls_pb2 import CallEnd

Req = TypeVar("Req")
Res = TypeVar("Res")
Metadata = grpc.aio.Metadata | Sequence[tuple[str, str | bytes]]

REQUEST_MAX_BYTES: Final = 256 * 1024
"""A larger request does not travel with others."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class CarriedUnary(grpc.aio.UnaryUnaryMultiCallable[Req, Res]):
    """A unary method that may be carried."""

    def __init__(
        self,
        inner: grpc.aio.UnaryUnaryMultiCallable[Req, Res],
        carrier: CallCarrier,
        path: str,
        serializer: Callable[[Req], bytes],
        deserializer: Callable[[bytes], Res],
        repeat_safe: bool,
    ) -> None:
        self._inner = inner
        self._carrier = carrier
        self._path = path
        self._serialize = serializer
        self._deserialize = deserializer
        self._repeat_safe = repeat_safe

    def __call__(
        self,
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> grpc.aio.UnaryUnaryCall[Req, Res]:
        def by_itself(left_s: float | None) -> grpc.aio.UnaryUnaryCall[Req, Res]:
            return self._inner(
                request,
                timeout=left_s,
                metadata=metadata,
                credentials=credentials,
                wait_for_ready=wait_for_ready,
                compression=compression,
            )

        call = _begin(self._carrier, self._path, self._serialize(request), metadata, timeout)
        if call is None:
            return by_itself(timeout)
        return _UnaryCall(call, timeout, self._deserialize, by_itself, self._repeat_safe)


class CarriedStream(grpc.aio.UnaryStreamMultiCallable[Req, Res]):
    """A method with a stream of answers that may be carried."""

    def __init__(
        self,
        inner: grpc.aio.UnaryStreamMultiCallable[Req, Res],
        carrier: CallCarrier,
        path: str,
        serializer: Callable[[Req], bytes],
        deserializer: Callable[[bytes], Res],
    ) -> None:
        self._inner = inner
        self._carrier = carrier
        self._path = path
        self._serialize = serializer
        self._deserialize = deserializer

    def __call__(
        self,
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> grpc.aio.UnaryStreamCall[Req, Res]:
        def by_itself() -> grpc.aio.UnaryStreamCall[Req, Res]:
            return self._inner(
                request,
                timeout=timeout,
                metadata=metadata,
                credentials=credentials,
                wait_for_ready=wait_for_ready,
                compression=compression,
            )

        # A deadline would have to end the reading of the stream: no method that is carried has one.
        carried = timeout is None
        payload = self._serialize(request)
        call = _begin(self._carrier, self._path, payload, metadata, None) if carried else None
        if call is None:
            return by_itself()
        return _StreamCall(call, self._deserialize, by_itself)


def _begin(
    carrier: CallCarrier,
    path: str,
    request: bytes,
    metadata: Metadata | None,
    timeout_s: float | None,
) -> CarriedCall | None:
    if len(request) > REQUEST_MAX_BYTES:
        return None
    said = {key: value for key, value in metadata or () if isinstance(value, str)}
    return carrier.begin(path, request, said, timeout_s)


class _Call(grpc.aio.Call):
    """A call that is carried, or that was to be and is made by itself (`_instead`)."""

    def __init__(self, call: CarriedCall, timeout_s: float | None) -> None:
        loop = asyncio.get_running_loop()
        self._call = call
        self._until_s = None if timeout_s is None else loop.time() + timeout_s
        self._instead: grpc.aio.Call | None = None
        self._over: asyncio.Future[grpc.StatusCode] = loop.create_future()

    async def _next(self) -> bytes | None:
        """The next message; None: the call has succeeded.

        Raises:
            NotCarried, StreamBroke: as `CarriedCall.next`.
            AioRpcError: how else it ended.
        """
        try:
            async with asyncio.timeout_at(self._until_s):
                found = await self._call.next()
        except TimeoutError:
            self._call.cancel()
            raise self._failed(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer in time") from None
        except asyncio.CancelledError:
            self.cancel()
            raise
        if isinstance(found, bytes):
            return found
        self._end(found)
        return None

    def _end(self, end: CallEnd) -> None:
        code = _CODES.get(end.code, grpc.StatusCode.UNKNOWN)
        if code is not grpc.StatusCode.OK:
            raise self._failed(code, end.message, end.details)
        self._finish(code)

    def _failed(
        self, code: grpc.StatusCode, text: str, details: bytes = b""
    ) -> grpc.aio.AioRpcError:
        self._finish(code)
        trailing = grpc.aio.Metadata(*([(DETAILS_KEY, details)] if details else []))
        return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, text)

    def _finish(self, code: grpc.StatusCode) -> None:
        if not self._over.done():
            self._over.set_result(code)

    def _left_s(self) -> float | None:
        if self._until_s is None:
            return None
        return max(0.001, self._until_s - asyncio.get_running_loop().time())

    def _replaced_by(self, call: grpc.aio.Call) -> None:
        self._instead = call
        call.add_done_callback(lambda _: self._finish(grpc.StatusCode.UNKNOWN))

    # --- grpc.aio.Call ----------------------------------------------------------------------

    def cancelled(self) -> bool:
        return self.done() and self._over.result() is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        return self._over.done()

    def time_remaining(self) -> float | None:
        return None

    def cancel(self) -> bool:
        if self._instead is not None:
            return self._instead.cancel()
        self._call.cancel()
        was_open = not self.done()
        self._finish(grpc.StatusCode.CANCELLED)
        return was_open

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._over.add_done_callback(lambda _: callback(self))

    async def initial_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata()

    async def code(self) -> grpc.StatusCode:
        code = await asyncio.shield(self._over)
        return code if self._instead is None else await self._instead.code()

    async def details(self) -> str:
        return ""

    async def wait_for_connection(self) -> None:
        """There is one."""


class _UnaryCall(_Call, grpc.aio.UnaryUnaryCall[Req, Res], Generic[Req, Res]):
    def __init__(
        self,
        call: CarriedCall,
        timeout_s: float | None,
        deserialize: Callable[[bytes], Res],
        by_itself: Callable[[float | None], grpc.aio.UnaryUnaryCall[Req, Res]],
        repeat_safe: bool,
    ) -> None:
        super().__init__(call, timeout_s)
        self._deserialize = deserialize
        self._by_itself = by_itself
        self._repeat_safe = repeat_safe

    def __await__(self) -> Generator[Any, None, Res]:
        return self._result().__await__()

    async def _result(self) -> Res:
        try:
            found = await self._next()
        except NotCarried:
            return await self._made_by_itself()
        except StreamBroke:
            if self._repeat_safe:
                return await self._made_by_itself()
            raise self._failed(grpc.StatusCode.UNAVAILABLE, "the stream broke") from None
        if found is None:
            raise self._failed(grpc.StatusCode.INTERNAL, "an answer without a message")
        self._finish(grpc.StatusCode.OK)
        return self._deserialize(found)

    def _made_by_itself(self) -> grpc.aio.UnaryUnaryCall[Req, Res]:
        call = self._by_itself(self._left_s())
        self._replaced_by(call)
        return call


class _StreamCall(_Call, grpc.aio.UnaryStreamCall[Req, Res], Generic[Req, Res]):
    def __init__(
        self,
        call: CarriedCall,
        deserialize: Callable[[bytes], Res],
        by_itself: Callable[[], grpc.aio.UnaryStreamCall[Req, Res]],
    ) -> None:
        super().__init__(call, None)
        self._deserialize = deserialize
        self._by_itself = by_itself
        self._stream: grpc.aio.UnaryStreamCall[Req, Res] | None = None

    def __aiter__(self) -> AsyncIterator[Res]:
        return self._messages()

    async def _messages(self) -> AsyncIterator[Res]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    async def read(self) -> Any:
        if self._stream is not None:
            return await self._stream.read()
        try:
            found = await self._next()
        except NotCarried:
            self._stream = self._by_itself()
            self._replaced_by(self._stream)
            return await self._stream.read()
        except StreamBroke:
            raise self._failed(grpc.StatusCode.UNAVAILABLE, "the stream broke") from None
        return grpc.aio.EOF if found is None else self._deserialize(found)
