"""Sockets: TCP to declared ports, connected pairs, and nothing else."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from tests.unit._sandbox.attempts import network
from tests.unit._sandbox.confined import Cell


@pytest.fixture
def port() -> Iterator[int]:
    """Somebody listens there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("what", [network.connect, network.connect_asyncio])
def test_only_declared_ports_are_reached(own: Cell, port: int, what: object) -> None:
    assert callable(what)
    assert own.with_(connect_ports=(port,)).attempt(what, port).value == "connected"
    for ports in ((), (1,)):
        came = own.with_(connect_ports=ports).attempt(what, port)
        assert came.errno == errno.EACCES, came
        assert "network_ports" in came.hint


@pytest.mark.parametrize("abi", range(7))
def test_without_ports_nothing_is_reached_on_any_kernel(own: Cell, port: int, abi: int) -> None:
    own = own.with_abi(abi)
    assert own.attempt(network.connect, port).errno == errno.EACCES
    assert own.with_(connect_ports=(port,)).attempt(network.connect, port).value == "connected"


def test_a_refused_connection_is_told_from_a_forbidden_one(own: Cell) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        free = unused.getsockname()[1]
        came = own.with_(connect_ports=(free,)).attempt(network.connect, free)
    assert came.error == "ConnectionRefusedError"
    assert "let the connection pass" in came.hint


@pytest.mark.parametrize("ports", [(), (80,)])
@pytest.mark.parametrize("what", [network.bind, network.listen])
def test_nobody_listens(own: Cell, ports: tuple[int, ...], what: object) -> None:
    assert callable(what)
    came = own.with_(connect_ports=ports).attempt(what)
    assert came.errno == errno.EACCES
    assert "cannot listen" in came.hint


def test_the_first_message_opens_no_connection(own: Cell, port: int) -> None:
    own = own.with_(connect_ports=(80,))
    assert own.attempt(network.connect_by_first_message, port).errno == errno.EPERM


@pytest.mark.parametrize(
    ("family", "kind", "protocol"),
    [
        (socket.AF_UNIX, socket.SOCK_STREAM, 0),
        (socket.AF_UNIX, socket.SOCK_DGRAM, 0),
        (socket.AF_INET, socket.SOCK_DGRAM, 0),
        (socket.AF_INET6, socket.SOCK_DGRAM, 0),
        (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        (socket.AF_INET, socket.SOCK_STREAM, 262),  # MPTCP
        (socket.AF_INET, socket.SOCK_STREAM, 132),  # SCTP
        (socket.AF_PACKET, socket.SOCK_RAW, 0),
        (socket.AF_NETLINK, socket.SOCK_RAW, 0),
        (socket.AF_VSOCK, socket.SOCK_STREAM, 0),
        (38, socket.SOCK_SEQPACKET, 0),  # the kernel's ciphers (AF_ALG)
    ],
)
def test_other_sockets_are_refused(own: Cell, family: int, kind: int, protocol: int) -> None:
    came = own.with_(connect_ports=(80,)).attempt(network.open_socket, family, kind, protocol)
    assert came.errno == errno.EPERM, came
    assert "TCP sockets only" in came.hint


def test_tcp_sockets_and_stream_pairs_are_made(own: Cell) -> None:
    for family in (socket.AF_INET, socket.AF_INET6):
        came = own.attempt(network.open_socket, family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        assert came.value == "opened"
    assert own.attempt(network.open_pair, socket.SOCK_STREAM).value == "opened"
    for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        assert own.attempt(network.open_pair, kind).errno == errno.EPERM


def test_names_of_the_machine_are_known_and_others_are_said_to_need_a_port(own: Cell) -> None:
    assert "127.0.0.1" in str(own.attempt(network.look_up, "localhost").value)
    came = own.with_(connect_ports=(443,)).attempt(network.look_up, "name.invalid")
    assert came.error == "gaierror"
    assert "53" in came.hint
