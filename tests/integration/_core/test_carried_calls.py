"""Calls on an open stream are the same calls: credentials, errors, deadlines, cancels, traces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry.trace import SpanKind

from factorychain._core.carried import breaks
from factorychain._core.carried.calls import REQUEST_MAX_BYTES
from factorychain._core.credentials import Authenticator, current_run, current_user, remaining_s
from factorychain._core.grpc_client import GrpcChannel
from factorychain._core.grpc_server import GrpcServer
from factorychain._core.settings import TransportSettings
from factorychain._core.tracing import span
from factorychain.agents.v1 import agents_pb2, agents_pb2_grpc
from factorychain.engine.v1 import engine_pb2, engine_pb2_grpc
from factorychain.errors import (
    ChainDegraded,
    FactoryChainError,
    InternalFault,
    TokenExpired,
    TokenInvalid,
)
from factorychain.types.v1.calls_pb2 import CallBegin, CallFrame
from tests.error_samples import SAMPLES
from tests.grpc_fixture import SETTINGS, Handler, Txns, Users, as_user, services
from tests.span_recorder import SpanRecorder
from tests.waiting import until, until_true

ENGINE = engine_pb2.DESCRIPTOR.services_by_name["EngineService"]
AGENTS = agents_pb2.DESCRIPTOR.services_by_name["AgentsService"]
AS_RUN = (("txn-token", "run:r1"),)


class Carrying:
    """A server, and channels that carry calls to it."""

    def __init__(self, settings: TransportSettings = SETTINGS) -> None:
        self.script: dict[str, Handler] = {}
        self.users = Users()
        self.ways: list[str] = []
        self.server = GrpcServer(
            settings,
            services(self.script),
            Authenticator(users=self.users, txns=Txns()),
            drain_timeout_s=0.2,
        )

    async def start(self) -> None:
        await self.server.start()
        self.to_engine = GrpcChannel(
            self.server.address, "engine", SETTINGS, carries=ENGINE, streams=2
        )
        self.to_agents = GrpcChannel(self.server.address, "agents", SETTINGS, carries=AGENTS)
        self.engine = engine_pb2_grpc.EngineServiceStub(self.to_engine.channel)
        self.agents = agents_pb2_grpc.AgentsServiceStub(self.to_agents.channel)
        await self.to_engine.start()
        await self.to_agents.start()

    async def stop(self) -> None:
        await self.to_engine.stop()
        await self.to_agents.stop()
        await self.server.stop()

    async def start_run(self, user: str = "alice", **options: Any) -> engine_pb2.StartRunResponse:
        request = options.pop("request", engine_pb2.StartRunRequest(thread="t1"))
        return await self.engine.StartRun(request, metadata=as_user(user), **options)

    async def execute(self, metadata: Any = AS_RUN) -> list[agents_pb2.ExecuteResponse]:
        call = self.agents.Execute(agents_pb2.ExecuteRequest(), metadata=metadata)
        return [each async for each in call]

    async def whose(self, request: Any, context: Any) -> engine_pb2.StartRunResponse:
        """Answers who asked for what, and notes how the call came."""
        self.ways.append(context.peer())
        return engine_pb2.StartRunResponse(run=current_user().principal.user, thread=request.thread)

    async def connected(self) -> None:
        """Returns when calls are carried."""
        self.script["StartRun"] = self.whose
        await until_true(lambda: self.to_engine.carrying and self.to_agents.carrying)


@pytest.fixture
async def carrying() -> AsyncIterator[Carrying]:
    chain = Carrying()
    await chain.start()
    await chain.connected()
    yield chain
    await chain.stop()


async def test_users_on_one_stream_are_each_themselves(carrying: Carrying) -> None:
    async def ask(index: int) -> None:
        request = engine_pb2.StartRunRequest(thread=f"t{index}")
        answer = await carrying.start_run(f"user{index % 7}", request=request)
        assert (answer.run, answer.thread) == (f"user{index % 7}", f"t{index}")

    await asyncio.gather(*map(ask, range(100)))
    assert set(carrying.ways) == {"carried"}


@pytest.mark.parametrize(
    ("metadata", "refusal"),
    [
        ((), TokenInvalid),
        ((("authorization", "Bearer user:"),), TokenInvalid),
        ((("authorization", "Bearer user:expired"),), TokenExpired),
        ((("txn-token", "run:r1"),), TokenInvalid),
    ],
)
async def test_a_call_without_a_good_credential_of_its_own_is_refused(
    carrying: Carrying, metadata: Any, refusal: type[FactoryChainError]
) -> None:
    good = carrying.start_run()
    with pytest.raises(refusal):
        await carrying.engine.StartRun(engine_pb2.StartRunRequest(), metadata=metadata)
    assert (await good).run == "alice"
    assert carrying.ways == ["carried"]  # no handler has run for the other


async def test_a_run_is_that_of_the_calls_own_token(carrying: Carrying) -> None:
    async def execute(request: Any, context: Any) -> AsyncIterator[agents_pb2.ExecuteResponse]:
        for boot in (current_run().run, context.peer()):
            accepted = agents_pb2.RunAccepted(boot_id=boot)
            yield agents_pb2.ExecuteResponse(accepted=accepted)

    carrying.script["Execute"] = execute
    for run in ("r1", "r2"):
        said = await carrying.execute((("txn-token", f"run:{run}"),))
        assert [each.accepted.boot_id for each in said] == [run, "carried"]
    with pytest.raises(TokenInvalid):
        await carrying.execute(())


@pytest.mark.parametrize("error", SAMPLES, ids=lambda each: each.reason)
async def test_an_error_arrives_as_it_was_raised(
    carrying: Carrying, error: FactoryChainError
) -> None:
    async def fail(request: Any, context: Any) -> None:
        raise error

    async def fail_later(request: Any, context: Any) -> AsyncIterator[Any]:
        yield agents_pb2.ExecuteResponse()
        raise error

    carrying.script.update(StartRun=fail, Execute=fail_later)
    with pytest.raises(type(error)) as unary:
        await carrying.start_run()
    with pytest.raises(type(error)) as streamed:
        await carrying.execute()
    for caught in (unary.value, streamed.value):
        assert (caught.reason, caught.message) == (error.reason, error.message)
        assert caught.retry_after_s == error.retry_after_s
        assert caught.metadata == error.metadata


async def test_what_a_handler_does_not_expect_is_an_internal_fault(carrying: Carrying) -> None:
    async def fail(request: Any, context: Any) -> None:
        raise ValueError("secret")

    carrying.script["StartRun"] = fail
    with pytest.raises(InternalFault) as caught:
        await carrying.start_run()
    assert "secret" not in caught.value.message


async def test_the_deadline_goes_along_and_ends_the_call(carrying: Carrying) -> None:
    left: list[float | None] = []
    stopped = asyncio.Event()

    async def hang(request: Any, context: Any) -> None:
        left.append(remaining_s())
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    carrying.script["StartRun"] = hang
    with pytest.raises(ChainDegraded, match="did not answer in time"):
        await carrying.start_run(timeout=0.2)
    await stopped.wait()
    assert left[0] is not None
    assert 0 < left[0] <= 0.2


async def test_who_stops_to_wait_stops_the_handler(carrying: Carrying) -> None:
    began, stopped = asyncio.Event(), asyncio.Event()

    async def hang(request: Any, context: Any) -> AsyncIterator[Any]:
        yield agents_pb2.ExecuteResponse()
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    carrying.script["Execute"] = hang
    call = carrying.agents.Execute(agents_pb2.ExecuteRequest(), metadata=AS_RUN)
    await call.read()
    await began.wait()
    call.cancel()
    await stopped.wait()
    assert (await carrying.start_run()).run == "alice"


async def test_a_call_is_one_trace(carrying: Carrying, spans: SpanRecorder) -> None:
    with span("caller", parent="") as caller:
        await carrying.start_run()
    (client,) = spans.named("/StartRun", SpanKind.CLIENT)[-1:]
    (server,) = spans.named("/StartRun", SpanKind.SERVER)[-1:]
    assert client.parent == caller.context
    assert server.parent is not None
    assert server.parent.span_id == client.context.span_id


async def test_what_is_not_to_be_carried_is_not(carrying: Carrying) -> None:
    """Also if a caller names it: there is a contract for each way to call."""

    async def get_run(request: Any, context: Any) -> engine_pb2.GetRunResponse:
        raise AssertionError("it was served")

    carrying.script["GetRun"] = get_run
    call = carrying.to_engine.channel._inner.stream_stream(
        f"/{ENGINE.full_name}/CarryCalls",
        request_serializer=engine_pb2.CarryCallsRequest.SerializeToString,
        response_deserializer=engine_pb2.CarryCallsResponse.FromString,
    )()
    begin = CallBegin(method=f"/{ENGINE.full_name}/GetRun", metadata=dict(as_user("alice")))
    frames = [CallFrame(call=1, begin=begin)]
    await call.write(engine_pb2.CarryCallsRequest(frames=frames))
    await call.done_writing()
    answers = [each async for message in call for each in message.answers]
    assert [each.WhichOneof("answer") for each in answers] == ["not_taken"]


async def test_a_large_request_travels_by_itself(carrying: Carrying) -> None:
    request = engine_pb2.StartRunRequest(thread="t", input_json=" " * REQUEST_MAX_BYTES)
    await carrying.start_run(request=request)
    assert carrying.ways != ["carried"]


async def test_a_server_that_drains_takes_no_more_and_finishes_what_it_has(
    carrying: Carrying,
) -> None:
    began, go = asyncio.Event(), asyncio.Event()

    async def slow(request: Any, context: Any) -> engine_pb2.StartRunResponse:
        carrying.ways.append(context.peer())
        began.set()
        await go.wait()
        return engine_pb2.StartRunResponse(run="slow")

    carrying.script["StartRun"] = slow
    first = asyncio.ensure_future(carrying.start_run())
    await began.wait()
    for each in carrying.server._carried:
        each.drain()
    second = asyncio.ensure_future(carrying.start_run())
    await until_true(lambda: len(carrying.ways) == 2)
    go.set()
    assert (await first).run == (await second).run == "slow"
    assert carrying.ways[0] == "carried"
    assert carrying.ways[1] != "carried"


async def test_a_peer_that_carries_nothing_is_called_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(GrpcServer, "_carrying", lambda *_: {})
    chain = Carrying()
    await chain.start()
    chain.script["StartRun"] = chain.whose
    assert [(await chain.start_run()).run for _ in range(3)] == ["alice"] * 3
    assert "carried" not in chain.ways
    await chain.stop()


async def test_calls_in_hand_outlive_the_age_of_their_connection() -> None:
    began, go, peers = asyncio.Event(), asyncio.Event(), set[str]()

    async def slow(request: Any, context: Any) -> engine_pb2.StartRunResponse:
        assert context.peer() == "carried"
        if request.thread == "in hand":
            began.set()
            await go.wait()
        return engine_pb2.StartRunResponse(run=current_user().principal.user)

    async def seen(request: Any, context: Any) -> engine_pb2.GetRunResponse:
        peers.add(context.peer())
        return engine_pb2.GetRunResponse()

    aging = SETTINGS.model_copy(
        update={"max_connection_age_s": 0.3, "max_connection_age_grace_s": 60}
    )
    chain = Carrying(aging)
    await chain.start()
    await chain.connected()
    chain.script |= {"StartRun": slow, "GetRun": seen}
    request = engine_pb2.StartRunRequest(thread="in hand")
    call = asyncio.ensure_future(chain.start_run(request=request))
    await began.wait()
    broken = breaks._broken.value({"peer": "engine"})

    async def moved() -> bool:  # GetRun is not carried, so it goes to the new connection
        await chain.engine.GetRun(engine_pb2.GetRunRequest(run="r"), metadata=as_user("alice"))
        return len(peers) > 1

    await until(moved)
    assert (await chain.start_run("bob")).run == "bob"  # on a stream, wherever that is
    go.set()
    assert (await call).run == "alice"
    assert breaks._broken.value({"peer": "engine"}) == broken
    await chain.stop()
