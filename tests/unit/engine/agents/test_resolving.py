"""Each replica behind a target has an address of its own."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from factorychain_engine.agents.resolving import resolve


@pytest.mark.parametrize(
    ("target", "addresses"),
    [
        ("10.0.0.1:7102", ("10.0.0.1:7102",)),
        ("[::1]:7102", ("[::1]:7102",)),
        ("dns:///10.0.0.1:7102", ("10.0.0.1:7102",)),
        ("ipv4:10.0.0.1:7102,10.0.0.2:7103", ("10.0.0.1:7102", "10.0.0.2:7103")),
        ("ipv6:[::1]:7102", ("[::1]:7102",)),
        ("unix:/run/agents.sock", ("unix:/run/agents.sock",)),
        ("xds:///agents", ("xds:///agents",)),
    ],
)
async def test_what_is_an_address_needs_no_look_up(target: str, addresses: tuple[str, ...]) -> None:
    assert await resolve(target) == addresses


@pytest.mark.parametrize(
    ("target", "port"),
    [
        ("agents:7102", 7102),
        ("dns:agents:7102", 7102),
        ("dns:///agents:7102", 7102),
        ("dns://10.0.0.53/agents:7102", 7102),
        ("dns:///agents", 443),
    ],
)
async def test_a_name_is_looked_up_and_comes_in_a_steady_order(
    target: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def getaddrinfo(host: str, asked: int, **_: Any) -> list[Any]:
        assert (host, asked) == ("agents", port)
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, (each, asked)) for each in ("10.0.0.2", "10.0.0.1", "10.0.0.2", "fd00::1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    assert await resolve(target) == (f"10.0.0.1:{port}", f"10.0.0.2:{port}", f"[fd00::1]:{port}")
