"""A name server for tests, and channels that ask it as often as they like."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from typing import cast

import pytest

from factorychain._core import grpc_client
from factorychain._core.grpc_options import Options
from factorychain._core.settings import TransportSettings

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


@pytest.fixture
def quick_lookups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are looked up whenever a connection is made; gRPC waits half a minute between two."""
    of_channel = grpc_client._options

    def quick(settings: TransportSettings) -> Options:
        return [*of_channel(settings), ("grpc.dns_min_time_between_resolutions_ms", 50)]

    monkeypatch.setattr(grpc_client, "_options", quick)
