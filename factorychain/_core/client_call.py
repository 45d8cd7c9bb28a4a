"""A call to another layer in progress: what grpc.aio gives, with our errors and a span that ends.

Invariants: every span ends, also of a call that was cancelled and of a stream that nobody reads;
what a peer refused arrives as the error that it raised; an open stream costs nothing per message
but one coroutine frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

import grpc
from opentelemetry.trace import SpanKind

from factorychain._core import status
from factorychain._core.component import detached
from factorychain._core.credentials import remaining_s
from factorychain._core.metrics import Distribution, histogram
from factorychain._core.tracing import ChainSpan, span
from factorychain.errors import ChainDegraded, FactoryChainError

Req = TypeVar("Req")
Res = TypeVar("Res")

# After this an opening span ends although nothing has come yet, so that it is exported.
OPENING_MAX_S = 1.0

_duration = histogram("rpc.client.call.duration", "Time until a unary call was answered")


class Method:
    """One method as it is called: names, and its series of measures, looked up once."""

    def __init__(self, path: str, layer: str, timeout_s: float) -> None:
        self.name = path.lstrip("/")
        self.layer = layer
        self._timeout_s = timeout_s
        self._attributes = {"rpc.system.name": "grpc", "rpc.method": self.name}
        self._durations: dict[str, Distribution] = {}

    def begin(self) -> ChainSpan:
        return span(self.name, kind=SpanKind.CLIENT, attributes=self._attributes)

    def timeout_s(self, asked_s: float | None) -> float:
        """The deadline of a unary call: never beyond that of the call which is being served."""
        own_s = self._timeout_s if asked_s is None else asked_s
        left_s = remaining_s()
        return own_s if left_s is None else min(own_s, left_s)

    def measure(self, code: str, seconds: float) -> None:
        series = self._durations.get(code)
        if series is None:
            labels = {**self._attributes, "rpc.response.status_code": code}
            series = self._durations[code] = _duration.labels(labels)
        series.record(seconds)

    def error(self, error: grpc.aio.AioRpcError) -> FactoryChainError:
        return status.from_rpc_error(error, self.layer)


class _Traced(grpc.aio.Call):
    """What every call has; the rest of the interface passes through."""

    def __init__(self, call: grpc.aio.Call, method: Method, opened: ChainSpan) -> None:
        self._call = call
        self._method = method
        self._span = opened

    def cancelled(self) -> bool:
        return self._call.cancelled()

    def done(self) -> bool:
        return self._call.done()

    def time_remaining(self) -> float | None:
        return self._call.time_remaining()

    def cancel(self) -> bool:
        return self._call.cancel()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._call.add_done_callback(lambda _: callback(self))

    async def initial_metadata(self) -> grpc.aio.Metadata:
        return await self._call.initial_metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return await self._call.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        return await self._call.code()

    async def details(self) -> str:
        return await self._call.details()

    async def wait_for_connection(self) -> None:
        try:
            await self._call.wait_for_connection()
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from error

    def _failed(self, error: grpc.aio.AioRpcError) -> FactoryChainError:
        found = self._method.error(error)
        self._span.record_error(found)
        self._span.end()
        return found

    async def _end_with_status(self) -> None:
        """Ends the span of a call whose outcome nobody fetched."""
        code = await self._call.code()
        if code is not grpc.StatusCode.OK:
            self._span.set("error.type", code.name)
        self._span.end()


class TracedUnaryCall(_Traced, grpc.aio.UnaryUnaryCall[Req, Res], Generic[Req, Res]):
    def __init__(
        self, call: grpc.aio.UnaryUnaryCall[Req, Res], method: Method, opened: ChainSpan
    ) -> None:
        super().__init__(call, method, opened)
        self._unary = call
        self._awaited = False
        call.add_done_callback(self._on_done)

    def __await__(self) -> Generator[Any, None, Res]:
        self._awaited = True
        return self._result().__await__()

    async def _result(self) -> Res:
        try:
            response = await self._unary
        except grpc.aio.AioRpcError as error:
            failed = self._failed(error)
            self._method.measure(failed.code.value, self._span.duration_s)
            raise failed from error
        except BaseException as error:
            self._span.record_error(error)
            raise
        else:
            self._method.measure("OK", self._span.duration_s)
            return response
        finally:
            self._span.end()

    def _on_done(self, _call: object) -> None:
        if not self._awaited:
            _after_all(self._end_with_status())


class TracedStreamCall(_Traced, grpc.aio.UnaryStreamCall[Req, Res], Generic[Req, Res]):
    """A stream of answers. Its span is that of the opening, up to the first message."""

    def __init__(
        self,
        call: grpc.aio.UnaryStreamCall[Req, Res] | grpc.aio.StreamStreamCall[Req, Res],
        method: Method,
        opened: ChainSpan,
    ) -> None:
        super().__init__(call, method, opened)
        self._stream = call
        self._iterator: AsyncIterator[Res] | None = None
        call.add_done_callback(lambda _: _after_all(self._end_with_status()))
        asyncio.get_running_loop().call_later(OPENING_MAX_S, opened.end)

    def __aiter__(self) -> AsyncIterator[Res]:
        if self._iterator is None:
            self._iterator = self._messages()
        return self._iterator

    async def _messages(self) -> AsyncIterator[Res]:
        try:
            async for message in self._stream:
                if not self._span.end_ns:
                    self._span.end()
                yield message
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from error

    async def read(self) -> Res | object:
        """The next message, or `grpc.aio.EOF`. Cancelling a read cancels the whole stream."""
        try:
            message = await self._stream.read()
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from error
        if not self._span.end_ns:
            self._span.end()
        return message


class TracedLinkCall(TracedStreamCall[Req, Res], grpc.aio.StreamStreamCall[Req, Res]):
    """A stream in both directions."""

    def __init__(
        self, call: grpc.aio.StreamStreamCall[Req, Res], method: Method, opened: ChainSpan
    ) -> None:
        super().__init__(call, method, opened)
        self._link = call

    async def write(self, request: Req) -> None:
        """Cancelling a write cancels the whole stream."""
        try:
            await self._link.write(request)
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from error
        except asyncio.InvalidStateError as error:
            # grpc.aio's way to say that the stream is over.
            raise ChainDegraded(self._method.layer) from error

    async def done_writing(self) -> None:
        await self._link.done_writing()


_endings: set[asyncio.Task[None]] = set()


def _after_all(ending: Coroutine[Any, Any, None]) -> None:
    """Runs a short coroutine from a callback, in no caller's context."""
    try:
        task = detached(ending, name="rpc:end span")
    except RuntimeError:  # the loop is gone
        ending.close()
        return
    _endings.add(task)
    task.add_done_callback(_endings.discard)
