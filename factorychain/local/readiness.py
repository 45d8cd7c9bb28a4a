"""Whether the processes of a chain serve."""

from __future__ import annotations

import asyncio
import socket
import urllib.error
import urllib.request

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from factorychain.local.state import ChainState

_POLL_S = 0.1
_CALL_S = 2.0
LAYERS = ("engine", "agents", "emitter", "bridge")


async def layer_serves(address: str) -> bool:
    """Whether the gRPC service at the address reports SERVING."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            request = health_pb2.HealthCheckRequest()
            # The stub's methods are made at run time; its types do not list them.
            answer = await stub.Check(request, timeout=_CALL_S)  # type: ignore[attr-defined]
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def edge_ready(url: str) -> bool:
    """Whether the edge answers `/readyz` with 200."""
    return await asyncio.to_thread(_http_ok, f"{url}/readyz")


async def nats_listens(url: str) -> bool:
    """Whether something accepts connections at `nats://host:port`."""
    host, _, port = url.removeprefix("nats://").rpartition(":")
    return await asyncio.to_thread(_connects, host, int(port))


async def chain_ready(state: ChainState) -> dict[str, bool]:
    """What serves now, by name: nats, the four layers, edge."""
    names = ["nats", *LAYERS, "edge"]
    results = await asyncio.gather(
        nats_listens(state.nats),
        *(layer_serves(getattr(state, layer)) for layer in LAYERS),
        edge_ready(state.edge),
    )
    return dict(zip(names, results, strict=True))


async def wait_ready(state: ChainState) -> None:
    """Returns when everything serves; the caller bounds it."""
    # Other processes come up when they do: there is nothing to wait on but asking.
    while not all((await chain_ready(state)).values()):  # noqa: ASYNC110
        await asyncio.sleep(_POLL_S)


def _http_ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_CALL_S) as answer:  # noqa: S310 - http on loopback
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _connects(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=_CALL_S):
            return True
    except OSError:
        return False
