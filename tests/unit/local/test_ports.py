"""Ports that nobody else takes."""

from __future__ import annotations

import random
import socket

import pytest

from factorychain.local import ports
from factorychain.local.ports import NoFreePort, free_ports, hold_ports, is_free, port_of


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


def test_a_port_that_is_held_is_nobody_elses_and_its_service_binds_it_again_and_again() -> None:
    (held,) = hold_ports(1, random.Random(7))
    try:
        for _ in range(2):
            assert port_of(held) not in free_ports(1, random.Random(7))
            with socket.create_server(("127.0.0.1", port_of(held))) as server:
                with socket.create_connection(server.getsockname()):
                    server.accept()[0].close()
                assert port_of(held) not in free_ports(1, random.Random(7))
    finally:
        held.close()


def test_a_port_that_was_just_closed_counts_as_free() -> None:
    # A connection of it may linger in TIME_WAIT; the services bind it all the same.
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()
    assert is_free(port)


def test_too_few_free_ports_are_an_error_that_says_how_many_and_hold_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (first,) = free_ports(1)
    monkeypatch.setattr(ports, "_FIRST", first)
    monkeypatch.setattr(ports, "_LAST", first)
    with pytest.raises(NoFreePort, match="found only 1 of 2 free ports"):
        free_ports(2)
    assert free_ports(1) == [first]
