"""The server as a component: health, reflection, drain, and what it refuses to start with."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from factorychain._core.contracts import ContractMissing
from factorychain._core.credentials import Authenticator
from factorychain._core.grpc_client import GrpcChannel
from factorychain._core.grpc_server import GrpcServer, Service
from factorychain._core.settings import TransportSettings
from factorychain.agents.v1 import agents_pb2, agents_pb2_grpc
from factorychain.engine.v1 import engine_pb2, engine_pb2_grpc
from factorychain.errors import FactoryChainError, TokenInvalid
from tests.certificates import Certificates
from tests.grpc_fixture import SETTINGS, Txns, Users, Wire, as_user, services

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
ENGINE = "factorychain.engine.v1.EngineService"


async def health_of(address: str, service: str = "") -> Any:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def test_health_answers_for_the_process_and_for_each_service(wire: Wire) -> None:
    for service in ("", ENGINE, "factorychain.agents.v1.AgentsService"):
        assert await health_of(wire.server.address, service) == SERVING
    wire.server.set_serving(False)
    assert await health_of(wire.server.address, ENGINE) == NOT_SERVING
    wire.server.set_serving(True)
    assert await health_of(wire.server.address) == SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health_of(wire.server.address, "nobody")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_quiet_stream_is_not_broken_for_the_pings_that_keep_it_alive(wire: Wire) -> None:
    settings = TransportSettings(listen="127.0.0.1:0", keepalive_time_s=1, keepalive_min_s=0.5)
    server = GrpcServer(
        settings,
        services(wire.script),
        Authenticator(users=wire.users, txns=Txns()),
        drain_timeout_s=1,
    )
    await server.start()
    channel = GrpcChannel(server.address, "engine", settings)
    health: Any = health_pb2_grpc.HealthStub(channel.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest())
    await watch.read()
    # A server that found these pings too many would say so after the third.
    quiet = asyncio.create_task(watch.read())
    await asyncio.wait([quiet], timeout=5)
    assert not quiet.done()
    server.set_serving(False)
    assert (await quiet).status == NOT_SERVING
    await channel.stop()
    await server.stop()


async def test_a_drain_says_not_serving_lets_calls_finish_and_watchers_go(wire: Wire) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def get_run(request: Any, context: Any) -> engine_pb2.GetRunResponse:
        entered.set()
        await go_on.wait()
        return engine_pb2.GetRunResponse()

    wire.script["GetRun"] = get_run
    server = GrpcServer(
        SETTINGS,
        services(wire.script),
        Authenticator(users=wire.users, txns=Txns()),
        drain_timeout_s=10,
    )
    await server.start()
    drained: list[str] = []
    server.on_drain(lambda: drained.append("told"))
    channel = GrpcChannel(server.address, "engine", SETTINGS)
    health: Any = health_pb2_grpc.HealthStub(channel.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest())
    first = await watch.read()
    running = asyncio.create_task(_get_run(channel))
    await entered.wait()
    stopping = asyncio.create_task(server.stop())
    second = await watch.read()
    assert (first.status, second.status) == (SERVING, NOT_SERVING)
    assert await watch.read() is grpc.aio.EOF
    assert drained == ["told"]
    assert not stopping.done()
    go_on.set()
    await running
    # Long before the drain's deadline: nothing else holds it up.
    await asyncio.wait_for(stopping, 5)
    await channel.stop()


async def _get_run(channel: GrpcChannel) -> None:
    call = channel.channel.unary_unary(
        f"/{ENGINE}/GetRun",
        engine_pb2.GetRunRequest.SerializeToString,
        engine_pb2.GetRunResponse.FromString,
    )
    await call(engine_pb2.GetRunRequest(), metadata=as_user("alice"))


async def test_reflection_lists_every_service(wire: Wire) -> None:
    channel: Any = wire.channel.channel
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    )
    answer = await call.read()
    listed = {each.name for each in answer.list_services_response.service}
    assert {ENGINE, "grpc.health.v1.Health", "factorychain.emitter.v1.EmitterService"} <= listed
    call.cancel()


async def test_a_handler_may_write_to_its_stream_itself() -> None:
    async def watch(_self: object, request: Any, context: Any) -> None:
        await context.write(engine_pb2.WatchRunResponse())
        await context.write(engine_pb2.WatchRunResponse())

    offered = services({})
    type(offered[0].servicer).WatchRun = watch  # type: ignore[attr-defined]  # made for the test
    server = GrpcServer(SETTINGS, offered, Authenticator(users=Users(), txns=Txns()))
    await server.start()
    channel = GrpcChannel(server.address, "engine", SETTINGS)
    stub = engine_pb2_grpc.EngineServiceStub(channel.channel)
    call = stub.WatchRun(engine_pb2.WatchRunRequest(), metadata=as_user("alice"))
    assert len([each async for each in call]) == 2
    await channel.stop()
    await server.stop()


async def test_a_method_that_nobody_serves_is_unimplemented(wire: Wire) -> None:
    raw: Any = wire.channel.channel.unary_unary("/factorychain.engine.v1.EngineService/Invented")
    with pytest.raises(FactoryChainError) as caught:
        await raw(b"")
    assert caught.value.reason == "NOT_IMPLEMENTED"


async def test_probes_have_a_port_of_their_own_with_health_alone() -> None:
    settings = SETTINGS.model_copy(update={"health_listen": "127.0.0.1:0"})
    authenticator = Authenticator(users=Users(), txns=Txns())
    server = GrpcServer(settings, services({}), authenticator, serving=False)
    await server.start()
    assert await health_of(server.health_address) == NOT_SERVING
    server.set_serving(True)
    assert await health_of(server.health_address, ENGINE) == SERVING
    async with grpc.aio.insecure_channel(server.health_address) as channel:
        get_keys: Any = channel.unary_unary(f"/{ENGINE}/GetKeys")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await get_keys(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await server.stop()


async def test_a_port_in_use_is_an_error_that_says_which(wire: Wire) -> None:
    settings = SETTINGS.model_copy(update={"listen": wire.server.address})
    second = GrpcServer(settings, services({}), Authenticator(users=Users(), txns=Txns()))
    with pytest.raises(RuntimeError, match=f"cannot listen on {wire.server.address}"):
        await second.start()
    await second.stop()


def test_a_server_with_a_method_without_a_contract_is_refused() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="other.proto", package="factorychain.other.v1")
    file.message_type.add(name="Nothing")
    nothing = ".factorychain.other.v1.Nothing"
    file.service.add(name="Other").method.add(name="Call", input_type=nothing, output_type=nothing)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptor = pool.FindServiceByName("factorychain.other.v1.Other")
    other = Service(descriptor, lambda _servicer, _server: None, object())
    with pytest.raises(ContractMissing, match=r"Other\.Call"):
        GrpcServer(SETTINGS, [other], Authenticator())


def test_a_server_that_could_not_check_a_credential_is_refused() -> None:
    with pytest.raises(ValueError, match="StartRun takes a USER credential"):
        GrpcServer(SETTINGS, services({}), Authenticator(txns=Txns()))


def test_a_servicer_that_misses_a_method_is_refused() -> None:
    engine = services({})[0]
    with pytest.raises(ValueError, match="no handler"):
        GrpcServer(
            SETTINGS,
            [replace(engine, add=lambda _servicer, _server: None)],
            Authenticator(users=Users(), txns=Txns()),
        )


@pytest.mark.parametrize("shown", [True, False])
async def test_over_tls_a_peer_has_to_show_its_certificate(
    shown: bool, certificates: Certificates
) -> None:
    async def list_agents(request: Any, context: Any) -> agents_pb2.ListAgentsResponse:
        return agents_pb2.ListAgentsResponse()

    pair = (certificates.key, certificates.certificate)
    server = GrpcServer(
        SETTINGS.model_copy(update={"listen": "localhost:0"}),
        services({"ListAgents": list_agents}),
        Authenticator(users=Users(), txns=Txns()),
        credentials=grpc.ssl_server_credentials([pair], certificates.authority, shown),
    )
    await server.start()
    credentials = grpc.ssl_channel_credentials(
        certificates.authority, *(pair if shown else (None, None))
    )
    channel = GrpcChannel(server.address, "agents", SETTINGS, credentials=credentials)
    stub = agents_pb2_grpc.AgentsServiceStub(channel.channel)
    call = stub.ListAgents(agents_pb2.ListAgentsRequest())
    if shown:
        await call
    else:
        with pytest.raises(TokenInvalid, match="showed no certificate"):
            await call
    await channel.stop()
    await server.stop()
