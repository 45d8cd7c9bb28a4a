"""A link whose peer closes connections at an age goes where the peer's name leads by then."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from factorychain._core import grpc_client, grpc_server
from factorychain._core.grpc_options import Options
from factorychain._core.settings import TransportSettings
from factorychain.types.v1.event_pb2 import AgentThinking, Event
from tests.link_fixture import BridgeHost, MemoryLog, Tokens, link_to

_A_RECORD = 1


class Name(asyncio.DatagramProtocol):
    """A DNS server that knows one address (RFC 1035), whatever the name."""

    def __init__(self, address: str) -> None:
        self.address = address

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | int, int]) -> None:
        end = data.index(b"\0", 12) + 5
        (kind,) = struct.unpack(">H", data[end - 4 : end - 2])
        answer = b"\xc0\x0c" + struct.pack(">HHIH", _A_RECORD, 1, 0, 4)
        answers = [answer + socket.inet_aton(self.address)] if kind == _A_RECORD else []
        counts = struct.pack(">HHHH", 1, len(answers), 0, 0)
        reply = data[:2] + b"\x85\x80" + counts + data[12:end] + b"".join(answers)
        self._transport.sendto(reply, addr)


@pytest.fixture
async def name() -> AsyncIterator[tuple[Name, str]]:
    """The server, and where it listens."""
    loop = asyncio.get_running_loop()
    transport, known = await loop.create_datagram_endpoint(
        lambda: Name("127.0.0.1"), local_addr=("127.0.0.1", 0)
    )
    yield known, "127.0.0.1:" + str(transport.get_extra_info("sockname")[1])
    transport.close()


@dataclass
class TcpHost(BridgeHost):
    """A bridge at an address of its own; the log is everybody's."""

    at: str = "127.0.0.1:0"

    @property
    def address(self) -> str:
        return self.at


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are closed after half a second and a little more; names are looked up at once."""
    of_server, of_channel = grpc_server._options, grpc_client._options

    def aged(settings: TransportSettings) -> Options:
        age: Options = [
            ("grpc.max_connection_age_ms", 500),
            ("grpc.max_connection_age_grace_ms", 200),
        ]
        return [*of_server(settings), *age]

    def quick(settings: TransportSettings) -> Options:
        return [*of_channel(settings), ("grpc.dns_min_time_between_resolutions_ms", 50)]

    monkeypatch.setattr(grpc_server, "_options", aged)
    monkeypatch.setattr(grpc_client, "_options", quick)


@pytest.mark.usefixtures("_soon")
async def test_it_moves_to_a_new_address_and_nothing_is_lost_or_doubled(
    name: tuple[Name, str],
) -> None:
    known, dns = name
    tokens = Tokens()
    log, new_log = MemoryLog(), MemoryLog()
    old = TcpHost(Path(), tokens, log)
    await old.start()
    assert old.server is not None
    port = old.server.address.rpartition(":")[2]
    new = TcpHost(Path(), tokens, new_log, at=f"127.0.0.2:{port}")
    new_log.runs = log.runs  # what is durable is durable for both
    await new.start()
    ctx, sent = tokens.context("moved"), 0
    async with link_to(f"dns://{dns}/bridge.test:{port}") as link, link.open(ctx) as run:
        async with asyncio.timeout(60):
            while not new_log.opened:
                sent += 1
                await run.send(thought(sent), sent)
                if log.durable(ctx.run):  # the link was up at the old address
                    known.address = "127.0.0.2"
                await asyncio.sleep(0.01)  # as an agent does that takes its time
            await run.flushed()
        assert log.run_seqs(ctx.run) == list(range(1, sent + 1))
    await old.kill()
    await new.kill()


def thought(number: int) -> bytes:
    return Event(agent_thinking=AgentThinking(text=str(number))).SerializeToString()
