"""A real edge on a real port, with an engine of this test over real gRPC, and a hub of this test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import grpc.aio
import pytest

from factorychain._core.settings import BridgeSettings
from factorychain._core.user_tokens import UserVerifier
from factorychain.engine.v1 import engine_pb2_grpc
from factorychain_bridge.edge.engine import EngineClient
from factorychain_bridge.edge.http import Readiness
from factorychain_bridge.edge.outputs import SessionLimits
from factorychain_bridge.edge.server import EdgeServer, limits_of
from tests.integration.edge.chain import Chain
from tests.integration.edge.engine import FakeEngine
from tests.integration.edge.hub import FakeHub
from tests.integration.edge.people import AUDIENCE, SECRET, token

Start = Callable[..., Any]


@asynccontextmanager
async def chains() -> AsyncIterator[Start]:
    """Starts edges with other limits or settings, and stops them."""
    stops: list[Callable[[], Any]] = []

    async def start(**changes: Any) -> Chain:
        hub = FakeHub()
        engine = FakeEngine(hub)
        server = grpc.aio.server()
        engine_pb2_grpc.add_EngineServiceServicer_to_server(engine, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        settings = BridgeSettings(
            edge_listen="127.0.0.1:0",
            mode=changes.pop("mode", "development"),
            allowed_origins=changes.pop("allowed_origins", ("https://chat.example",)),
            drain_timeout_s=4.0,
        )
        limits: SessionLimits = replace(limits_of(settings), **changes)
        verifier = UserVerifier(audience=AUDIENCE, secret=SECRET)

        async def readiness() -> Readiness:
            return Readiness(found.ready, {"integration": "ACTIVE"})

        edge = EdgeServer(
            settings,
            verifier=verifier,
            hub=hub,
            connect=hub.connect,
            engine=EngineClient(channel, timeout_s=5),
            readiness=readiness,
            mint=token,
            limits=limits,
        )
        await edge.start()
        http = aiohttp.ClientSession()
        found = Chain(edge, hub, engine, http)
        stops.extend((lambda: server.stop(0), channel.close, edge.stop, http.close))
        return found

    try:
        yield start
    finally:
        for stop in reversed(stops):
            await stop()


@pytest.fixture
async def start_chain() -> AsyncIterator[Start]:
    async with chains() as start:
        yield start


@pytest.fixture
async def chain(start_chain: Start) -> Chain:
    found: Chain = await start_chain()
    return found
