"""The relay of chaos: what passes, what breaks, what waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest
import pytest_asyncio

from tests.chaos.relay import Relay

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
MUCH = b"m" * 4_000_000


GREETING = b"welcome"


class Echo(asyncio.Protocol):
    """Speaks first, then sends back what it is sent."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(GREETING)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@pytest_asyncio.fixture
async def relay() -> AsyncIterator[Relay]:
    """To a server that echoes."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    relay = Relay(f"{host}:{port}")
    yield relay
    await relay.stop()
    server.close()
    await server.wait_closed()


async def connect(relay: Relay) -> Streams:
    host, _, port = (await relay.listen()).rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def connect_and_hear(relay: Relay) -> Streams:
    reader, writer = await connect(relay)
    assert await reader.readexactly(len(GREETING)) == GREETING
    return reader, writer


async def test_everything_comes_out_in_order_however_much_it_is(relay: Relay) -> None:
    reader, writer = await connect_and_hear(relay)
    writer.write(MUCH)
    assert await reader.readexactly(len(MUCH)) == MUCH
    writer.close()


async def test_a_cut_breaks_what_is_open_and_lets_nothing_in_until_it_is_healed(
    relay: Relay,
) -> None:
    reader, writer = await connect_and_hear(relay)
    writer.write(b"here")
    assert await reader.readexactly(4) == b"here"
    assert relay.cut() == 1
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()
    reader, writer = await connect(relay)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()
    relay.heal()
    reader, writer = await connect_and_hear(relay)
    writer.write(b"again")
    assert await reader.readexactly(5) == b"again"
    writer.close()


async def test_in_silence_nothing_passes_and_nothing_is_lost(relay: Relay) -> None:
    reader, writer = await connect_and_hear(relay)
    writer.write(b"here")
    assert await reader.readexactly(4) == b"here"
    assert relay.silence() == 1
    writer.write(b"later")
    late_reader, late_writer = await connect(relay)
    late_writer.write(b"later, too")
    heard = [asyncio.create_task(each.read(1)) for each in (reader, late_reader)]
    done, _ = await asyncio.wait(heard, timeout=0.1)
    assert not done
    relay.heal()
    assert [await each for each in heard] == [b"l", GREETING[:1]]
    assert await reader.readexactly(4) == b"ater"
    rest = GREETING[1:] + b"later, too"
    assert await late_reader.readexactly(len(rest)) == rest
    writer.close()
    late_writer.close()
