"""Errors over real sockets, both ways, and what a call is promised when things go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from factorychain._core import server_interceptor
from factorychain._core.contracts import all_contracts
from factorychain._core.credentials import remaining_s
from factorychain._core.grpc_client import MAX_ATTEMPTS, GrpcChannel
from factorychain.emitter.v1 import emitter_pb2
from factorychain.engine.v1 import engine_pb2, engine_pb2_grpc
from factorychain.errors import (
    ChainDegraded,
    FactoryChainError,
    InternalFault,
    InvalidField,
    RunNotFound,
    UserQueueLimit,
)
from tests.error_samples import SAMPLES
from tests.grpc_fixture import SETTINGS, Wire, as_user

REQUEST = engine_pb2.GetRunRequest()
# gRPC repeats only what is UNAVAILABLE; the others arrive at once.
AT_ONCE = [each for each in SAMPLES if not isinstance(each, ChainDegraded)]


async def get_run(wire: Wire, **options: Any) -> engine_pb2.GetRunResponse:
    return await wire.engine.GetRun(REQUEST, metadata=as_user("alice"), **options)


@pytest.mark.parametrize("error", AT_ONCE, ids=lambda each: each.reason)
async def test_an_error_arrives_as_it_was_raised(wire: Wire, error: FactoryChainError) -> None:
    async def fail(request: Any, context: Any) -> None:
        raise error

    async def fail_later(request: Any, context: Any) -> AsyncIterator[Any]:
        yield engine_pb2.WatchRunResponse()
        raise error

    wire.script.update(GetRun=fail, WatchRun=fail_later)
    with pytest.raises(type(error)) as unary:
        await get_run(wire)
    with pytest.raises(type(error)) as streamed:
        async for _ in wire.engine.WatchRun(
            engine_pb2.WatchRunRequest(), metadata=as_user("alice")
        ):
            pass
    for caught in (unary.value, streamed.value):
        assert (caught.reason, caught.message) == (error.reason, error.message)
        assert caught.retry_after_s == error.retry_after_s
        assert caught.metadata == error.metadata


async def test_an_unexpected_failure_arrives_as_an_incident_that_the_log_explains(
    wire: Wire,
) -> None:
    async def fail(request: Any, context: Any) -> None:
        raise KeyError("canary of another user")

    wire.script["GetRun"] = fail
    with capture_logs() as lines, pytest.raises(InternalFault) as caught:
        await get_run(wire)
    assert "canary" not in str(caught.value)
    (line,) = [each for each in lines if each["event"] == "an unexpected failure"]
    assert line["incident"] == caught.value.incident
    assert line["where"] == "factorychain.engine.v1.EngineService/GetRun"


async def test_an_error_of_a_further_layer_passes_through_unchanged(wire: Wire) -> None:
    async def behind(request: Any, context: Any) -> None:
        raise UserQueueLimit(16, retry_after_s=7)

    async def before(request: Any, context: Any) -> Any:
        return await wire.engine.ListRuns(engine_pb2.ListRunsRequest(), metadata=as_user("alice"))

    wire.script.update(ListRuns=behind, GetRun=before)
    with pytest.raises(UserQueueLimit) as caught:
        await get_run(wire)
    assert caught.value.retry_after_s == 7


async def test_a_handler_that_raises_cancelled_error_itself_is_answered(wire: Wire) -> None:
    async def give_up(request: Any, context: Any) -> None:
        raise asyncio.CancelledError

    async def give_up_later(request: Any, context: Any) -> AsyncIterator[Any]:
        yield engine_pb2.WatchRunResponse()
        raise asyncio.CancelledError

    # Answered at once: a call that hangs would say that nothing came in time.
    wire.script.update(RespondToRun=give_up, WatchRun=give_up_later)
    with pytest.raises(ChainDegraded, match="not available"):
        await wire.engine.RespondToRun(
            engine_pb2.RespondToRunRequest(), metadata=as_user("alice"), timeout=5
        )
    with pytest.raises(ChainDegraded, match="not available"):
        async for _ in wire.engine.WatchRun(
            engine_pb2.WatchRunRequest(), metadata=as_user("alice"), timeout=5
        ):
            pass


async def test_a_request_that_is_no_message_is_refused_by_name(wire: Wire) -> None:
    raw: Any = wire.channel.channel.unary_unary("/factorychain.engine.v1.EngineService/GetRun")
    with pytest.raises(InvalidField, match="request"):
        await raw(b"\xff\xff\xff", metadata=as_user("alice"))


async def test_a_message_on_a_link_that_is_none_ends_the_link_with_the_reason(wire: Wire) -> None:
    async def emit(requests: Any, context: Any) -> AsyncIterator[emitter_pb2.EmitResponse]:
        async for _ in requests:
            yield emitter_pb2.EmitResponse()

    wire.script["Emit"] = emit
    raw: Any = wire.channel.channel.stream_stream("/factorychain.emitter.v1.EmitterService/Emit")
    call = raw()
    await call.write(b"\xff\xff\xff")
    with pytest.raises(InvalidField):
        await call.read()


async def test_a_message_over_the_limit_is_refused_and_the_channel_lives_on(wire: Wire) -> None:
    async def ok(request: Any, context: Any) -> engine_pb2.GetRunResponse:
        return engine_pb2.GetRunResponse()

    wire.script["GetRun"] = ok
    huge = engine_pb2.GetRunRequest(run="x" * (SETTINGS.max_message_bytes + 1))
    with pytest.raises(FactoryChainError) as caught:
        await wire.engine.GetRun(huge, metadata=as_user("alice"))
    assert caught.value.reason == "RESOURCE_EXHAUSTED"
    await get_run(wire)


async def test_a_reason_outside_of_the_contract_is_counted_as_a_breach(wire: Wire) -> None:
    async def fail(request: Any, context: Any) -> None:
        raise UserQueueLimit(1, retry_after_s=1)

    async def not_found(request: Any, context: Any) -> None:
        raise RunNotFound

    breaches = server_interceptor._breaches
    series = {
        "rpc.method": "factorychain.engine.v1.EngineService/GetRun",
        "breach": "error",
        "error.type": "USER_QUEUE_LIMIT",
    }
    before = breaches.value(series)
    for handler, error in ((fail, UserQueueLimit), (not_found, RunNotFound)):
        wire.script["GetRun"] = handler
        with pytest.raises(error):
            await get_run(wire)
    assert breaches.value(series) == before + 1
    assert breaches.value({**series, "error.type": "RUN_NOT_FOUND"}) == 0


async def test_an_answer_later_than_the_contracts_p99_is_counted_as_a_breach(wire: Wire) -> None:
    contracts = {each.method: each for each in all_contracts() if each.layer == "engine"}
    bound_s = contracts["GetRun"].p99_s
    assert bound_s is not None
    late_s = 2 * bound_s

    async def late(request: Any, context: Any) -> Any:
        await asyncio.sleep(late_s)
        if isinstance(request, engine_pb2.CancelRunRequest):
            return engine_pb2.CancelRunResponse()
        return engine_pb2.GetRunResponse()

    async def late_refusal(request: Any, context: Any) -> None:
        await asyncio.sleep(late_s)
        raise RunNotFound

    def slow(method: str) -> float:
        name = contracts[method].path[1:]
        return server_interceptor._breaches.value({"rpc.method": name, "breach": "slow"})

    before = slow("GetRun")
    wire.script["GetRun"] = late
    await get_run(wire)
    wire.script["GetRun"] = late_refusal
    with pytest.raises(RunNotFound):
        await get_run(wire)
    assert slow("GetRun") == before + 2
    # The same time is within the bound of another call.
    before = slow("CancelRun")
    wire.script["CancelRun"] = late
    await wire.engine.CancelRun(engine_pb2.CancelRunRequest(), metadata=as_user("alice"))
    assert slow("CancelRun") == before


async def test_only_repeat_safe_unary_calls_are_repeated(wire: Wire) -> None:
    calls: list[str] = []

    async def away(request: Any, context: Any) -> None:
        calls.append(type(request).__name__)
        raise ChainDegraded("engine")

    async def away_stream(request: Any, context: Any) -> AsyncIterator[Any]:
        await away(request, context)
        yield

    wire.script.update(GetRun=away, RespondToRun=away, WatchRun=away_stream)
    with pytest.raises(ChainDegraded):
        await get_run(wire)
    with pytest.raises(ChainDegraded):
        await wire.engine.RespondToRun(engine_pb2.RespondToRunRequest(), metadata=as_user("alice"))
    with pytest.raises(ChainDegraded):
        await wire.engine.WatchRun(engine_pb2.WatchRunRequest(), metadata=as_user("alice")).read()
    assert calls == ["GetRunRequest"] * MAX_ATTEMPTS + ["RespondToRunRequest", "WatchRunRequest"]


async def test_a_repeated_call_succeeds_when_the_layer_is_back(wire: Wire) -> None:
    answers = [ChainDegraded("engine"), ChainDegraded("engine"), None]

    async def get(request: Any, context: Any) -> engine_pb2.GetRunResponse:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return engine_pb2.GetRunResponse()

    wire.script["GetRun"] = get
    await get_run(wire)
    assert answers == []


async def test_a_peer_that_is_not_there_is_named() -> None:
    channel = GrpcChannel("127.0.0.1:1", "emitter", SETTINGS)
    stub = engine_pb2_grpc.EngineServiceStub(channel.channel)
    with pytest.raises(ChainDegraded) as caught:
        await stub.RespondToRun(engine_pb2.RespondToRunRequest())
    assert caught.value.layer == "emitter"
    assert not channel.connected
    await channel.stop()


async def test_the_deadline_of_a_call_holds_for_what_it_calls(wire: Wire) -> None:
    left: list[float | None] = []
    stopped = asyncio.Event()

    async def behind(request: Any, context: Any) -> None:
        left.append(remaining_s())
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async def before(request: Any, context: Any) -> Any:
        # It asks for more than it has.
        return await wire.engine.ListRuns(
            engine_pb2.ListRunsRequest(), metadata=as_user("alice"), timeout=60
        )

    wire.script.update(ListRuns=behind, GetRun=before)
    with pytest.raises(ChainDegraded, match="did not answer in time"):
        await get_run(wire, timeout=0.5)
    await asyncio.wait_for(stopped.wait(), 30)
    # gRPC rounds deadlines up a little; it had asked for 60.
    assert left[0] is not None
    assert left[0] < 1


async def test_a_unary_call_without_a_deadline_gets_the_configured_one(wire: Wire) -> None:
    left: list[float | None] = []

    async def get(request: Any, context: Any) -> engine_pb2.GetRunResponse:
        left.append(remaining_s())
        return engine_pb2.GetRunResponse()

    wire.script["GetRun"] = get
    await get_run(wire)
    assert left[0] is not None
    assert left[0] == pytest.approx(SETTINGS.rpc_timeout_s, rel=0.1)


async def test_a_stream_opened_in_a_call_may_outlive_it(wire: Wire) -> None:
    opened: list[Any] = []

    async def watch(request: Any, context: Any) -> AsyncIterator[Any]:
        yield engine_pb2.WatchRunResponse()
        yield engine_pb2.WatchRunResponse()
        assert context.time_remaining() is None

    async def get(request: Any, context: Any) -> engine_pb2.GetRunResponse:
        call = wire.engine.WatchRun(engine_pb2.WatchRunRequest(), metadata=as_user("alice"))
        await call.read()
        opened.append(call)
        return engine_pb2.GetRunResponse()

    wire.script.update(WatchRun=watch, GetRun=get)
    await get_run(wire, timeout=5)
    (call,) = opened
    await call.read()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_writing_to_a_link_that_is_over_says_that_the_layer_is_away(wire: Wire) -> None:
    async def emit(requests: Any, context: Any) -> AsyncIterator[Any]:
        yield emitter_pb2.EmitResponse()

    wire.script["Emit"] = emit
    call = wire.emitter.Emit()
    await call.read()
    assert await call.read() is grpc.aio.EOF
    with pytest.raises(ChainDegraded):
        await call.write(emitter_pb2.EmitRequest())
