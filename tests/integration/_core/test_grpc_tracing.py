"""Trace context over real sockets: unary, server-streaming, bidirectional, cancelled, abandoned.

The cases that the published interceptors get wrong (opentelemetry-python-contrib#2014, #2357, #3066,
#3271, #3915).
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from opentelemetry.trace import SpanKind

from factorychain._core import server_interceptor
from factorychain._core.credentials import Authenticator
from factorychain._core.grpc_client import GrpcChannel
from factorychain._core.grpc_server import GrpcServer
from factorychain._core.tracing import current_traceparent, span
from factorychain.emitter.v1 import emitter_pb2
from factorychain.engine.v1 import engine_pb2, engine_pb2_grpc
from tests.grpc_fixture import SETTINGS, Txns, Users, Wire, as_user, services
from tests.span_recorder import SpanRecorder
from tests.waiting import until

whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="nobody")


async def ended(spans: SpanRecorder, suffix: str, kind: SpanKind) -> Any:
    async def look() -> Any:
        found = spans.named(suffix, kind)
        return found[0] if found else None

    return await until(look)


async def test_a_unary_call_is_one_trace_with_the_handler_inside(
    wire: Wire, spans: SpanRecorder
) -> None:
    async def get_run(request: Any, context: Any) -> engine_pb2.GetRunResponse:
        with span("inside"):
            return engine_pb2.GetRunResponse()

    wire.script["GetRun"] = get_run
    with span("caller", parent="") as caller:
        await wire.engine.GetRun(engine_pb2.GetRunRequest(), metadata=as_user("alice"))
    client = await ended(spans, "/GetRun", SpanKind.CLIENT)
    server = await ended(spans, "/GetRun", SpanKind.SERVER)
    inside = await ended(spans, "inside", SpanKind.INTERNAL)
    assert client.parent == caller.context
    assert server.parent.span_id == client.context.span_id
    assert inside.parent == server.context
    assert {each.context.trace_id for each in (client, server, inside)} == {caller.context.trace_id}
    assert server.attributes["rpc.method"] == "factorychain.engine.v1.EngineService/GetRun"


async def test_a_server_stream_is_spanned_to_its_first_message_and_stays_current_in_its_handler(
    wire: Wire, spans: SpanRecorder
) -> None:
    go_on = asyncio.Event()
    seen: list[str] = []

    async def watch(request: Any, context: Any) -> AsyncIterator[engine_pb2.WatchRunResponse]:
        yield engine_pb2.WatchRunResponse()
        await go_on.wait()
        seen.append(current_traceparent())
        yield engine_pb2.WatchRunResponse()

    wire.script["WatchRun"] = watch
    with span("caller", parent="") as caller:
        call = wire.engine.WatchRun(engine_pb2.WatchRunRequest(), metadata=as_user("alice"))
        messages = aiter(call)
        await anext(messages)
        # Both are exported while the stream is still open.
        client = await ended(spans, "/WatchRun", SpanKind.CLIENT)
        server = await ended(spans, "/WatchRun", SpanKind.SERVER)
        go_on.set()
        await anext(messages)
        with pytest.raises(StopAsyncIteration):
            await anext(messages)
    assert server.parent.span_id == client.context.span_id
    assert client.parent == caller.context
    assert seen == [server.traceparent]


async def test_a_link_is_spanned_when_it_opens_and_no_trace_is_current_in_its_handler(
    wire: Wire, spans: SpanRecorder
) -> None:
    seen: list[str] = []

    async def emit(requests: Any, context: Any) -> AsyncIterator[emitter_pb2.EmitResponse]:
        async for _ in requests:
            seen.append(current_traceparent())
            yield emitter_pb2.EmitResponse()

    wire.script["Emit"] = emit
    with span("whoever opened it", parent=""):
        call = wire.emitter.Emit()
    await call.write(emitter_pb2.EmitRequest())
    await call.read()
    client = await ended(spans, "/Emit", SpanKind.CLIENT)
    server = await ended(spans, "/Emit", SpanKind.SERVER)
    assert server.parent.span_id == client.context.span_id
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert seen == [""]
    assert len(spans.named("/Emit")) == 2


async def test_a_trace_that_the_caller_gives_itself_is_left_as_it_is(
    wire: Wire, spans: SpanRecorder
) -> None:
    seen: list[str] = []

    async def get_run(request: Any, context: Any) -> engine_pb2.GetRunResponse:
        seen.append(current_traceparent())
        return engine_pb2.GetRunResponse()

    wire.script["GetRun"] = get_run
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    metadata = (*as_user("alice"), ("traceparent", given))
    await wire.engine.GetRun(engine_pb2.GetRunRequest(), metadata=metadata)
    assert seen[0].split("-")[1] == given.split("-")[1]


async def test_a_cancelled_call_stops_its_handler_and_ends_both_spans(
    wire: Wire, spans: SpanRecorder
) -> None:
    entered, stopped = asyncio.Event(), asyncio.Event()

    async def get_run(request: Any, context: Any) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    wire.script["GetRun"] = get_run

    async def call() -> None:
        await wire.engine.GetRun(engine_pb2.GetRunRequest(), metadata=as_user("alice"))

    calling = asyncio.create_task(call())
    await entered.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await asyncio.wait_for(stopped.wait(), 30)
    for kind in (SpanKind.CLIENT, SpanKind.SERVER):
        assert (await ended(spans, "/GetRun", kind)).attributes["error.type"] == "cancelled"
    assert current_traceparent() == ""


async def test_a_call_that_nobody_awaits_ends_its_span(wire: Wire, spans: SpanRecorder) -> None:
    async def get_run(request: Any, context: Any) -> engine_pb2.GetRunResponse:
        return engine_pb2.GetRunResponse()

    wire.script["GetRun"] = get_run
    call = wire.engine.GetRun(engine_pb2.GetRunRequest(), metadata=as_user("alice"))
    client = await ended(spans, "/GetRun", SpanKind.CLIENT)
    assert "error.type" not in client.attributes
    assert call.done()


async def test_a_call_cancelled_by_its_own_method_ends_its_span_with_the_code(
    wire: Wire, spans: SpanRecorder
) -> None:
    async def get_run(request: Any, context: Any) -> None:
        await asyncio.Event().wait()

    wire.script["GetRun"] = get_run
    call = wire.engine.GetRun(engine_pb2.GetRunRequest(), metadata=as_user("alice"))
    await asyncio.sleep(0)
    assert call.cancel()
    client = await ended(spans, "/GetRun", SpanKind.CLIENT)
    assert client.attributes["error.type"] == "CANCELLED"


async def test_a_stream_that_nobody_reads_still_ends_its_spans_and_its_handler(
    wire: Wire, spans: SpanRecorder
) -> None:
    closed = asyncio.Event()

    async def watch(request: Any, context: Any) -> AsyncIterator[engine_pb2.WatchRunResponse]:
        try:
            yield engine_pb2.WatchRunResponse()
            await asyncio.Event().wait()
        finally:
            closed.set()

    wire.script["WatchRun"] = watch
    name = "factorychain.engine.v1.EngineService/WatchRun"
    before = server_interceptor._streams.value({"rpc.method": name})
    call = wire.engine.WatchRun(engine_pb2.WatchRunRequest(), metadata=as_user("alice"))
    await ended(spans, "/WatchRun", SpanKind.SERVER)
    await ended(spans, "/WatchRun", SpanKind.CLIENT)
    assert server_interceptor._streams.value({"rpc.method": name}) == before + 1
    call.cancel()
    await asyncio.wait_for(closed.wait(), 30)

    async def gone() -> bool:
        return server_interceptor._streams.value({"rpc.method": name}) == before

    await until(gone)


async def test_a_server_gives_its_handlers_nothing_of_the_context_it_was_started_in(
    spans: SpanRecorder,
) -> None:
    seen: list[str] = []

    async def get_run(request: Any, context: Any) -> engine_pb2.GetRunResponse:
        seen.append(whose.get())
        return engine_pb2.GetRunResponse()

    whose.set("alice")
    server = GrpcServer(
        SETTINGS, services({"GetRun": get_run}), Authenticator(users=Users(), txns=Txns())
    )
    await server.start()
    channel = GrpcChannel(server.address, "engine", SETTINGS)
    stub = engine_pb2_grpc.EngineServiceStub(channel.channel)
    await stub.GetRun(engine_pb2.GetRunRequest(), metadata=as_user("bob"))
    await channel.stop()
    await server.stop()
    assert seen == ["nobody"]
