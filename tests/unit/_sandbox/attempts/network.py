"""Sockets of every kind. Each attempt does one thing, and returns what a test looks at or lets its error out."""

from __future__ import annotations

import asyncio
import socket


def connect(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=10):
        return "connected"


def connect_asyncio(port: int) -> str:
    async def open_it() -> str:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
        return "connected"

    return asyncio.run(open_it())


def open_socket(family: int, kind: int, protocol: int) -> str:
    with socket.socket(family, kind, protocol):
        return "opened"


def open_pair(kind: int) -> str:
    for each in socket.socketpair(socket.AF_UNIX, kind):
        each.close()
    return "opened"


def bind() -> None:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))


def listen() -> None:
    """Without `bind` the kernel would choose a port by itself."""
    with socket.socket() as it:
        it.listen()


def connect_by_first_message(port: int) -> None:
    with socket.socket() as it:
        it.sendto(b"hello", 0x20000000, ("127.0.0.1", port))  # MSG_FASTOPEN


def look_up(name: str) -> list[str]:
    return sorted({str(each[4][0]) for each in socket.getaddrinfo(name, 80)})
