"""A NATS to test: the real server, and the one of the simulation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
import pytest_asyncio

from factorychain._core import nats_connection
from factorychain._core.jetstream import JetStream
from factorychain._core.nats_connection import NatsConnection, NatsEndpoint
from tests.nats_fixture import NatsServer, running_nats_server
from tests.simulation.nats_server import FakeNats
from tests.simulation.nats_wire import FakeClient, Server, Wire


@dataclass
class Nats:
    """A server of either kind."""

    connect: Callable[[str], Awaitable[JetStream]]
    """A connection of `engine` or `bridge`."""
    pass_time: Callable[[float], Awaitable[None]]
    restart: Callable[[], Awaitable[None]]
    """Ends it as a kill would and starts it again, with its data."""


@pytest_asyncio.fixture(params=["real", "fake"])
async def nats(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Nats]:
    async with AsyncExitStack() as stack:
        if request.param == "real":
            yield _real(await stack.enter_async_context(running_nats_server(tmp_path)), stack)
        else:
            yield _fake(monkeypatch, stack)


def _real(server: NatsServer, connections: AsyncExitStack) -> Nats:
    async def restart() -> None:
        await server.kill()
        await server.start()

    return Nats(
        lambda user: connections.enter_async_context(server.connected(user)), asyncio.sleep, restart
    )


def _fake(monkeypatch: pytest.MonkeyPatch, connections: AsyncExitStack) -> Nats:
    now_s = [0.0]
    server = Server(FakeNats(lambda: now_s[0]), Random(0))
    ends: list[_End] = []

    def dial() -> Wire:
        end = _End()
        ends.append(end)
        server.accept(end.peer)
        return end

    async def connect(user: str) -> JetStream:
        connection = NatsConnection(NatsEndpoint("nats://fake", user), f"test-{user}")
        await connection.start()
        connections.push_async_callback(connection.stop)
        return JetStream(connection)

    async def pass_time(seconds: float) -> None:
        now_s[0] += seconds

    async def restart() -> None:
        for end in ends[:]:
            end.on_lost()
            end.peer.on_lost()

    monkeypatch.setattr(nats_connection, "QuickClient", lambda: FakeClient(dial))
    return Nats(connect, pass_time, restart)


class _End:
    """One end of a connection in memory: `tests.simulation.network.End` without delay."""

    def __init__(self, peer: _End | None = None) -> None:
        self.peer = peer or _End(self)
        self.on_message: Callable[[Any], None] = lambda _: None
        self.on_lost: Callable[[], None] = lambda: None

    def send(self, message: object) -> None:
        asyncio.get_running_loop().call_soon(lambda: self.peer.on_message(message))

    def close(self) -> None:
        self.peer.on_lost()
