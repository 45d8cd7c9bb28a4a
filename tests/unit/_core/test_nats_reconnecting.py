"""Lost connections to NATS come back apart, and not faster than a server can take them."""

from __future__ import annotations

from urllib.parse import urlparse

from nats.aio.client import Server

from factorychain._core.nats_reconnecting import (
    FIRST_WAIT_S,
    HEALTHY_AFTER_S,
    LONGEST_WAIT_S,
    Reconnecting,
)


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def servers(*reconnects: int) -> list[Server]:
    return [
        Server(urlparse(f"nats://n{number}:4222"), reconnects=each)
        for number, each in enumerate(reconnects)
    ]


def longest(_least: float, most: float) -> float:
    return most


def test_the_first_try_is_at_once_and_those_after_it_wait_longer_and_longer() -> None:
    reconnecting = Reconnecting(Clock(), longest)
    waits = [reconnecting(servers(0), {})[1] for _ in range(6)]
    assert waits[:3] == [0.0, FIRST_WAIT_S, 2 * FIRST_WAIT_S]
    assert waits[3:] == [LONGEST_WAIT_S] * 3


def test_waits_are_spread_out() -> None:
    bounds = []

    def recorded(least: float, most: float) -> float:
        bounds.append((least, most))
        return least

    reconnecting = Reconnecting(Clock(), recorded)
    assert [reconnecting(servers(0), {})[1] for _ in range(2)] == [0.0, FIRST_WAIT_S / 2]
    assert bounds == [(FIRST_WAIT_S / 2, FIRST_WAIT_S)]


def test_only_a_connection_that_has_held_for_a_while_begins_pauses_anew() -> None:
    clock = Clock()
    reconnecting = Reconnecting(clock, longest)
    for _ in range(3):  # taken and dropped at once
        reconnecting(servers(0), {})
        reconnecting.connected()
        clock.now_s += HEALTHY_AFTER_S - 1
        reconnecting.lost()
    assert reconnecting(servers(0), {})[1] == LONGEST_WAIT_S
    reconnecting.connected()
    clock.now_s += HEALTHY_AFTER_S
    reconnecting.lost()
    assert reconnecting(servers(0), {})[1] == 0.0


def test_the_other_servers_are_tried_before_any_is_waited_for() -> None:
    reconnecting = Reconnecting(Clock(), longest)
    pool = servers(0, 0, 0)
    tried = []
    for _ in range(4):
        server, wait_s = reconnecting(pool, {})
        server.reconnects += 1
        tried.append((server.uri.hostname, wait_s))
    assert tried == [("n0", 0.0), ("n1", 0.0), ("n2", 0.0), ("n0", FIRST_WAIT_S)]
