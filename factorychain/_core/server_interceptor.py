"""Everything that happens around a handler, once for every call of every service.

Trace context, the credential of the contract, the handler, errors as status, measures against the
contract. It wraps handlers when they are registered instead of running as `grpc.aio` interceptors:
those cost several coroutines a call, and what is not wrapped is simply not served.

Invariants: a handler runs only after the credential was checked; a call is always answered, also
when the handler raises CancelledError on its own (grpc#29248 leaves the client hanging); a message
on an open stream costs nothing extra.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, Never, cast

import grpc
from google.protobuf.message import DecodeError
from opentelemetry.trace import SpanKind

from factorychain._core import status
from factorychain._core.contracts import FactoryLayerContract
from factorychain._core.credentials import Authenticator, CallContext, Metadata, enter_call
from factorychain._core.metrics import Distribution, counter, histogram, up_down_counter
from factorychain._core.tracing import ChainSpan, extract, span
from factorychain.errors import ChainDegraded, FactoryChainError, InvalidField, TokenExpired

# A protobuf message or whatever a handler is typed with; grpc itself gives no more.
_Message = Any
_Context = grpc.aio.ServicerContext[Any, Any]
_Unary = Callable[[_Message, _Context], Awaitable[_Message]]
# A coroutine that writes itself, or a generator of messages.
_Handler = Callable[[_Message, _Context], Any]

_duration = histogram(
    "rpc.server.call.duration", "Time to answer a unary call, or a stream's first message"
)
_breaches = counter("factorychain.contract.breaches", "Calls that did not keep their contract")
_streams = up_down_counter("factorychain.rpc.server.streams", "Streams that are open")


class _Unreadable:
    """Stands for a request that could not be parsed, so that the answer is ours."""


_UNREADABLE = _Unreadable()


class ServerInterceptor:
    """Wraps the handlers of one server."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def wrap(
        self, contract: FactoryLayerContract, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler with everything around it; ValueError if its credential can't be checked."""
        self._authenticator.require(contract)
        guarded = _Guarded(contract, self._authenticator)
        deserializer, serializer = handler.request_deserializer, handler.response_serializer
        if handler.request_streaming:
            if not handler.response_streaming:
                raise ValueError(f"{contract.path}: client-streaming calls are not supported")
            return grpc.stream_stream_rpc_method_handler(
                guarded.stream(cast("_Handler", handler.stream_stream)), deserializer, serializer
            )
        readable = _tolerant(deserializer)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                guarded.stream(cast("_Handler", handler.unary_stream)), readable, serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            guarded.unary(cast("_Unary", handler.unary_unary)), readable, serializer
        )


def _tolerant(deserializer: Callable[[bytes], object] | None) -> Callable[[bytes], object]:
    def read(raw: bytes) -> object:
        try:
            return raw if deserializer is None else deserializer(raw)
        except DecodeError:
            return _UNREADABLE

    return read


class _Guarded:
    """One method: its contract, and its series of measures, looked up once."""

    def __init__(self, contract: FactoryLayerContract, authenticator: Authenticator) -> None:
        self._contract = contract
        self._authenticator = authenticator
        self._name = contract.path[1:]
        self._attributes = {"rpc.system.name": "grpc", "rpc.method": self._name}
        self._open_streams = _streams.labels({"rpc.method": self._name})
        self._durations: dict[str, Distribution] = {}

    # --- unary ---

    def unary(self, inner: _Unary) -> _Unary:
        async def serve(request: _Message, context: _Context) -> _Message:
            began_s = time.perf_counter()
            metadata = context.invocation_metadata() or ()
            with self._span(metadata) as serving:
                try:
                    enter_call(await self._admit(request, metadata, context))
                    response = await inner(request, context)
                except BaseException as raised:  # noqa: BLE001 - `_answerable` raises what must pass
                    error = self._answerable(raised)
                    serving.record_error(error)
                else:
                    self._measure("OK", time.perf_counter() - began_s)
                    return response
            return await self._refuse(context, error, began_s)

        return serve

    # --- streams ---

    def stream(self, inner: _Handler) -> _Unary:
        serve = self._open_link if self._contract.client_streaming else self._serve_stream

        async def counted(request: _Message, context: _Context) -> None:
            self._open_streams.add(1)
            try:
                await serve(inner, request, context)
            finally:
                self._open_streams.add(-1)

        return counted

    async def _serve_stream(self, inner: _Handler, request: _Message, context: _Context) -> None:
        """Server-streaming: one caller, whose span stays current though it ends with the opening."""
        began_s = time.perf_counter()
        metadata = context.invocation_metadata() or ()
        with self._span(metadata) as opening:
            try:
                call = await self._admit(request, metadata, context)
                enter_call(call)
                first = self._first(opening, began_s)
                await _until_expired(call, _pump(inner, request, context, first))
            except BaseException as raised:  # noqa: BLE001 - `_answerable` raises what must pass
                error = self._answerable(raised)
                opening.record_error(error)
            else:
                return
        await self._refuse(context, error, began_s)

    async def _open_link(self, inner: _Handler, request: _Message, context: _Context) -> None:
        """Bidirectional: many runs share it, so that no span and no run is current in its handler."""
        began_s = time.perf_counter()
        metadata = context.invocation_metadata() or ()
        try:
            with self._span(metadata):
                enter_call(await self._authenticator.admit(self._contract, metadata, context))
            self._measure("OK", time.perf_counter() - began_s)
            await _pump(inner, request, context, None)
        except BaseException as raised:  # noqa: BLE001 - `_answerable` raises what must pass
            error = self._answerable(raised)
        else:
            return
        await self._refuse(context, error, began_s)

    def _first(self, opening: ChainSpan, began_s: float) -> Callable[[], None]:
        def first() -> None:
            opening.end()
            self._measure("OK", time.perf_counter() - began_s)

        return first

    # --- what both share ---

    def _span(self, metadata: Metadata) -> ChainSpan:
        return span(
            self._name, kind=SpanKind.SERVER, parent=extract(metadata), attributes=self._attributes
        )

    async def _admit(self, request: _Message, metadata: Metadata, context: _Context) -> CallContext:
        call = await self._authenticator.admit(self._contract, metadata, context)
        if request is _UNREADABLE:
            raise InvalidField("request", f"is no message of {self._name}")
        return call

    def _answerable(self, raised: BaseException) -> FactoryChainError:
        """What to answer; what is not to be answered is raised again."""
        if isinstance(raised, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise raised  # the caller is gone
            return ChainDegraded(self._contract.layer)
        if isinstance(raised, DecodeError):
            return InvalidField("request", f"is no message of {self._name}")
        # grpc's own: an abort by the handler, or the peer or the server that is gone.
        ours = isinstance(raised, Exception) and not isinstance(raised, grpc.aio.BaseError)
        if not ours and not isinstance(raised, grpc.aio.UsageError):
            raise raised
        return status.as_error(raised, where=self._name)

    async def _refuse(self, context: _Context, error: FactoryChainError, began_s: float) -> Never:
        if error.reason not in self._contract.errors:
            _breaches.add(
                1, {"rpc.method": self._name, "breach": "error", "error.type": error.reason}
            )
        self._measure(error.code.value, time.perf_counter() - began_s)
        await status.abort(context, error)

    def _measure(self, code: str, seconds: float) -> None:
        series = self._durations.get(code)
        if series is None:
            labels = {**self._attributes, "rpc.response.status_code": code}
            series = self._durations[code] = _duration.labels(labels)
        series.record(seconds)
        bound_s = self._contract.p99_s
        if bound_s is not None and seconds > bound_s:
            _breaches.add(1, {"rpc.method": self._name, "breach": "slow"})


async def _until_expired(call: CallContext, serving: Awaitable[None]) -> None:
    """A token expires on a live stream too; one timer, nothing per message."""
    expires_at_s = call.expires_at_s
    left_s = None if expires_at_s is None else max(0.0, expires_at_s - time.time())
    timer = asyncio.timeout(left_s)
    try:
        async with timer:
            await serving
    except TimeoutError:
        if timer.expired():
            raise TokenExpired from None
        raise


async def _pump(
    inner: _Handler,
    request: _Message,
    context: _Context,
    first: Callable[[], None] | None,
) -> None:
    """Runs a handler of either style, a generator of messages or one that writes itself."""
    if not inspect.isasyncgenfunction(inner):
        if first is not None:
            first()
        await inner(request, context)
        return
    # Closed here and now, in the call's own task: left to the garbage collector it would end in
    # another context.
    async with contextlib.aclosing(inner(request, context)) as messages:
        async for message in messages:
            if first is not None:
                first()
                first = None
            await context.write(message)
