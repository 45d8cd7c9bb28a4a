"""A peer that says nothing and closes nothing, as one whose machine or network is lost, is left."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from factorychain._core import grpc_options, nats_connection
from factorychain._core.credentials import Authenticator
from factorychain._core.grpc_client import GrpcChannel
from factorychain._core.grpc_server import GrpcServer
from factorychain._core.nats_connection import NatsState
from factorychain._core.settings import AgentsSettings, TransportSettings
from factorychain.engine.v1 import engine_pb2, engine_pb2_grpc
from tests.chaos.relay import Relay
from tests.grpc_fixture import Txns, Users, as_user, services
from tests.nats_fixture import NatsServer
from tests.waiting import until_true

ENGINE = engine_pb2.DESCRIPTOR.services_by_name["EngineService"]
QUICK_S = 0.5
_LEFT_WITHIN_S = 8.0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> TransportSettings:
    monkeypatch.setattr(grpc_options, "PING_TIMEOUT_S", QUICK_S)
    monkeypatch.setattr(nats_connection, "_PING_INTERVAL_S", QUICK_S)
    return TransportSettings(listen="127.0.0.1:0", keepalive_time_s=1, keepalive_min_s=0.5)


@pytest.fixture
async def relay(quick: TransportSettings) -> AsyncIterator[Relay]:
    """To an engine that knows of no run."""

    async def get_run(request: Any, context: Any) -> engine_pb2.GetRunResponse:
        return engine_pb2.GetRunResponse()

    allowed = Authenticator(users=Users(), txns=Txns())
    server = GrpcServer(quick, services({"GetRun": get_run}), allowed, drain_timeout_s=0.2)
    await server.start()
    relay = Relay(server.address)
    yield relay
    await relay.stop()
    await server.stop()


@pytest.mark.parametrize("talks", [True, False], ids=["while it talks", "while it is idle"])
async def test_a_silent_peer_is_left(relay: Relay, quick: TransportSettings, talks: bool) -> None:
    channel = GrpcChannel(await relay.listen(), "engine", quick, carries=ENGINE)
    stub: Any = engine_pb2_grpc.EngineServiceStub(channel.channel)

    async def call_again_and_again() -> None:
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await stub.GetRun(engine_pb2.GetRunRequest(), metadata=as_user("ada"), timeout=1)

    await channel.start()
    await until_true(lambda: channel.carrying)
    calls = asyncio.create_task(call_again_and_again()) if talks else None
    # A quiet connection goes on being looked after.
    await asyncio.sleep(0.5 if talks else 4 * quick.keepalive_time_s)
    assert channel.carrying
    relay.silence()
    try:
        await until_true(lambda: not channel.carrying, _LEFT_WITHIN_S)
    finally:
        if calls is not None:
            calls.cancel()
            await asyncio.gather(calls, return_exceptions=True)
        await channel.stop()


@pytest.mark.usefixtures("quick")
async def test_a_silent_nats_server_is_left(nats_server: NatsServer) -> None:
    async with nats_server.connected("engine") as js:
        nats_server.pause()
        try:
            left = NatsState.DISCONNECTED
            await until_true(lambda: js.connection.state is left, _LEFT_WITHIN_S)
        finally:
            nats_server.resume()


def test_silent_peers_are_left_long_before_runs_are_given_up() -> None:
    settings = AgentsSettings()
    silent_s = settings.keepalive_time_s + grpc_options.PING_TIMEOUT_S
    nats_s = nats_connection._PING_INTERVAL_S * (nats_connection._PINGS_UNANSWERED + 1)
    assert max(silent_s, nats_s) <= settings.outage_max_s / 3
