"""Channels whose calls carry trace context and deadline and raise our errors.

A channel around a channel instead of `grpc.aio` interceptors: those cost a task a call, and the
published tracing ones break on streams (see opentelemetry-python-contrib#2014, #3066, #3271, #3915).

Invariants: a unary call never outlasts the call in which it is made; a trace context that the
caller gave itself is left as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TypeVar

import grpc

from factorychain._core.carried import CallCarrier, CarriedStream, CarriedUnary
from factorychain._core.client_call import (
    Method,
    TracedLinkCall,
    TracedStreamCall,
    TracedUnaryCall,
)
from factorychain._core.contracts import carried_contracts
from factorychain._core.tracing import TRACEPARENT

Req = TypeVar("Req")
Res = TypeVar("Res")
Metadata = Iterable[tuple[str, str | bytes]]


def with_trace(metadata: Metadata | None, traceparent: str) -> tuple[tuple[str, str | bytes], ...]:
    """The metadata with the trace context; one that the caller gave itself stays."""
    given = tuple(metadata) if metadata else ()
    if any(key == TRACEPARENT for key, _ in given):
        return given
    return (*given, (TRACEPARENT, traceparent))


class TracedChannel(grpc.aio.Channel):
    """A channel whose calls carry trace and deadline and raise our errors."""

    def __init__(
        self,
        inner: grpc.aio.Channel,
        layer: str,
        timeout_s: float,
        carrier: CallCarrier | None = None,
    ) -> None:
        """`carrier` takes the calls that may be carried."""
        self._inner = inner
        self._layer = layer
        self._timeout_s = timeout_s
        self._carrier = carrier

    def _method(self, path: str) -> Method:
        return Method(path, self._layer, self._timeout_s)

    # grpc's generated stubs pass `_registered_method`, which aio channels take and ignore.
    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Req], bytes] | None = None,
        response_deserializer: Callable[[bytes], Res] | None = None,
        _registered_method: bool | None = None,
    ) -> grpc.aio.UnaryUnaryMultiCallable[Req, Res]:
        inner = self._inner.unary_unary(method, request_serializer, response_deserializer)
        contract = carried_contracts().get(method)
        if self._carrier and contract and request_serializer and response_deserializer:
            inner = CarriedUnary(
                inner,
                self._carrier,
                method,
                request_serializer,
                response_deserializer,
                contract.repeat_safe,
            )
        return _UnaryUnary(inner, self._method(method))

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Req], bytes] | None = None,
        response_deserializer: Callable[[bytes], Res] | None = None,
        _registered_method: bool | None = None,
    ) -> grpc.aio.UnaryStreamMultiCallable[Req, Res]:
        inner = self._inner.unary_stream(method, request_serializer, response_deserializer)
        carried = method in carried_contracts()
        if self._carrier and carried and request_serializer and response_deserializer:
            inner = CarriedStream(
                inner, self._carrier, method, request_serializer, response_deserializer
            )
        return _UnaryStream(inner, self._method(method))

    def stream_stream(
        self,
        method: str,
        request_serializer: Callable[[Req], bytes] | None = None,
        response_deserializer: Callable[[bytes], Res] | None = None,
        _registered_method: bool | None = None,
    ) -> grpc.aio.StreamStreamMultiCallable[Req, Res]:
        inner = self._inner.stream_stream(method, request_serializer, response_deserializer)
        return _StreamStream(inner, self._method(method))

    def stream_unary(
        self,
        method: str,
        request_serializer: Callable[[Req], bytes] | None = None,
        response_deserializer: Callable[[bytes], Res] | None = None,
        _registered_method: bool | None = None,
    ) -> grpc.aio.StreamUnaryMultiCallable[Req, Res]:
        raise NotImplementedError("the chain has no client-streaming calls")

    async def close(self, grace: float | None = None) -> None:
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._inner.channel_ready()

    async def __aenter__(self) -> TracedChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _UnaryUnary(grpc.aio.UnaryUnaryMultiCallable[Req, Res]):
    def __init__(self, inner: grpc.aio.UnaryUnaryMultiCallable[Req, Res], method: Method) -> None:
        self._inner = inner
        self._method = method

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
        opened = self._method.begin()
        call = self._inner(
            request,
            timeout=self._method.timeout_s(timeout),
            metadata=with_trace(metadata, opened.traceparent),
            credentials=credentials,
            wait_for_ready=wait_for_ready,
            compression=compression,
        )
        return TracedUnaryCall(call, self._method, opened)


class _UnaryStream(grpc.aio.UnaryStreamMultiCallable[Req, Res]):
    def __init__(self, inner: grpc.aio.UnaryStreamMultiCallable[Req, Res], method: Method) -> None:
        self._inner = inner
        self._method = method

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
        opened = self._method.begin()
        # A stream may outlive the call in which it is opened: it inherits no deadline.
        call = self._inner(
            request,
            timeout=timeout,
            metadata=with_trace(metadata, opened.traceparent),
            credentials=credentials,
            wait_for_ready=wait_for_ready,
            compression=compression,
        )
        return TracedStreamCall(call, self._method, opened)


class _StreamStream(grpc.aio.StreamStreamMultiCallable[Req, Res]):
    def __init__(self, inner: grpc.aio.StreamStreamMultiCallable[Req, Res], method: Method) -> None:
        self._inner = inner
        self._method = method

    def __call__(
        self,
        request_iterator: AsyncIterator[Req] | Iterator[Req] | None = None,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> grpc.aio.StreamStreamCall[Req, Res]:
        opened = self._method.begin()
        call = self._inner(
            request_iterator,
            timeout=timeout,
            metadata=with_trace(metadata, opened.traceparent),
            credentials=credentials,
            wait_for_ready=wait_for_ready,
            compression=compression,
        )
        return TracedLinkCall(call, self._method, opened)
