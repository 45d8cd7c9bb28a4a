"""The addresses behind a gRPC target: one for each replica of a layer.

Resolved here, not by gRPC's channel, since the replicas have to be told apart: each has a channel of its own.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

Resolve: TypeAlias = Callable[[str], Awaitable[Sequence[str]]]

_LISTS: Final = ("ipv4:", "ipv6:")
_DEFAULT_PORT: Final = "443"
_OPAQUE: Final = ("unix:", "unix-abstract:", "xds:")


async def resolve(target: str) -> Sequence[str]:
    """Addresses for channels, in a steady order.

    A target is host:port or one of gRPC's naming schemes
    (https://github.com/grpc/grpc/blob/master/doc/naming.md).

    Raises:
        OSError: the name cannot be resolved now.
    """
    if target.startswith(_OPAQUE):
        return (target,)
    for scheme in _LISTS:
        if target.startswith(scheme):
            return tuple(target.removeprefix(scheme).lstrip("/").split(","))
    host, port = _host_and_port(target)
    if _is_address(host):
        return (_joined(host, port),)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    return tuple(sorted({_joined(str(address[0]), port) for *_, address in found}))


def _host_and_port(target: str) -> tuple[str, str]:
    name = target.removeprefix("dns:")
    if name.startswith("//"):
        name = name[2:].partition("/")[2]  # after the name server's own address
    host, _, port = name.rpartition(":")
    if not port.isdigit():
        return name.strip("[]"), _DEFAULT_PORT
    return host.strip("[]"), port


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _joined(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
