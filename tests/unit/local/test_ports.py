"""Ports that nobody else takes."""

from __future__ import annotations

import random
import socket

import pytest

from factorychain.local import ports
from factorychain.local.ports import NoFreePort, free_ports, is_free


def test_they_are_different_free_and_below_those_of_outgoing_connections() -> None:
    found = free_ports(8)
    assert len(set(found)) == 8
    assert all(20_000 <= port < 32_000 for port in found)
    assert all(is_free(port) for port in found)


def test_a_port_that_somebody_listens_on_is_not_free_and_not_chosen() -> None:
    first = free_ports(1, random.Random(7))[0]
    with socket.create_server(("127.0.0.1", first)):
        assert not is_free(first)
        assert free_ports(1, random.Random(7)) != [first]


def test_a_port_that_was_just_closed_counts_as_free() -> None:
    # A connection of it may linger in TIME_WAIT; the services bind it all the same.
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()
    assert is_free(port)


def test_too_few_free_ports_are_an_error_that_says_how_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: port % 2 == 0 and port < 20_003)
    monkeypatch.setattr(ports, "_LAST", 20_010)
    with pytest.raises(NoFreePort, match="found only 2 of 5 free ports"):
        free_ports(5)
