"""The four services as processes of a simulation: built by their own composition roots.

Invariant: nothing of a service is replaced but what leaves its process: the NATS client, gRPC's
channel and server, and the WebSocket below the edge. That, and nothing else, is patched here.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import grpc
import structlog
from aiohttp import WSMsgType

from factorychain._core import nats_connection
from factorychain._core.component import ComponentGroup
from factorychain._core.ids import Principal
from factorychain._core.keys import TxnKey, jwks_document, new_secret, read_secret
from factorychain._core.settings import (
    AgentsSettings,
    BridgeSettings,
    EmitterSettings,
    EngineSettings,
)
from factorychain._core.user_tokens import mint_user_token
from factorychain._instance.definition import AgentDefinition
from factorychain._sandbox import probe
from factorychain_agents import readiness as agents_readiness
from factorychain_agents import server as agents_server
from factorychain_agents.registry import load
from factorychain_agents.server import AgentsServer
from factorychain_bridge import server as bridge_server
from factorychain_bridge.server import BridgeServer
from factorychain_emitter.server import EmitterServer
from factorychain_engine import readiness as engine_readiness
from factorychain_engine import server as engine_server
from factorychain_engine.agents import replicas
from factorychain_engine.server import EngineServer
from tests.simulation import reality, shortcuts
from tests.simulation.grpc_channel import Channel
from tests.simulation.grpc_serving import Server as GrpcServing
from tests.simulation.nats_wire import FakeClient
from tests.simulation.network import End, Network

if TYPE_CHECKING:
    from factorychain_bridge.edge.transport import Transport

LAYERS = {"engine": 7101, "agents": 7102, "emitter": 7103, "bridge": 7104}
EDGE_PORT = 8080
NATS = "nats:4222"
USER_LIMIT = 2
RUN_LIFETIME_S = 30
AGENTS_LOST_AFTER_S = 6
OUTAGE_MAX_S = 8
_AGENTS = ("tests.simulation.agents",)
_FEWER = (
    (bridge_server, "_ENGINE_STREAMS", 2),  # there are no more engines
    (replicas, "LOOK_S", 2.0),
    (engine_readiness, "LOOK_EVERY_S", 60.0),  # nobody asks for its health
    (agents_readiness, "_LOOK_EVERY_S", 60.0),  # nor for theirs
)
"""What a simulation has less of, where there is no setting."""

Server = EngineServer | AgentsServer | EmitterServer | BridgeServer


class Warned(NamedTuple):
    """A line that a service logged, warning or worse."""

    level: str
    event: str
    line: dict[str, Any]


def install(network: Network, warned: Callable[[Warned], None]) -> None:
    """Whatever services open from now on, they open in this network."""
    grpc.aio.insecure_channel = lambda target, *_: Channel(network, target)  # type: ignore[assignment]  # stands in
    grpc.aio.server = lambda handlers, **_: GrpcServing(network, handlers)  # type: ignore[assignment]  # too
    client = lambda: FakeClient(lambda: network.connect(NATS))  # noqa: E731 - takes a class's place
    nats_connection.QuickClient = client  # type: ignore[attr-defined, assignment]  # stands in
    engine_server.resolve = network.resolve  # type: ignore[attr-defined]  # where the engine looks it up
    agents_server.load = _load  # type: ignore[attr-defined]  # where the service looks it up

    _hears[:] = [warned]


_hears: list[Callable[[Warned], None]] = []


def _keep(_logger: object, level: str, line: Any) -> Any:
    _hears[-1](Warned(level, str(line.get("event")), dict(line)))
    raise structlog.DropEvent


@cache
def _load(modules: Sequence[str]) -> list[AgentDefinition]:
    """Only the agents of the simulation: those of every installation have much to read at a start."""
    return [each for each in load(modules) if each.cls.__module__ in modules]


@cache
def keys() -> Path:
    """Keys for all simulations of this process: making them takes longer than a run."""
    directory = Path(tempfile.mkdtemp(prefix="simulation-"))
    key = TxnKey.generate()
    (directory / "key.pem").write_bytes(key.to_pem())
    (directory / "jwks.json").write_text(jwks_document([key]))
    (directory / "secret").write_text(new_secret())
    probe()
    return directory


def warm() -> None:
    """What every simulation needs, and takes longer than one: once, before there are children.

    `remove_keys` is for whoever has called this.
    """
    shortcuts.take()
    for module, name, value in _FEWER:
        assert hasattr(module, name), f"{module} has no {name} any more"
        setattr(module, name, value)
    structlog.configure(
        processors=[structlog.processors.format_exc_info, _keep],
        wrapper_class=structlog.make_filtering_bound_logger(30),
        cache_logger_on_first_use=True,
    )
    keys()
    _load(_AGENTS)
    for layer, replica, nats_replicas in product(LAYERS, (1, 2, 3), (1, 3)):
        settings(layer, f"{layer}-{replica}", nats_replicas)


def remove_keys() -> None:
    """Once nothing is simulated any more."""
    shutil.rmtree(keys())


@cache
def user_token(principal: Principal) -> str:
    """One of the moment at which every simulation begins."""
    secret = read_secret(keys() / "secret")
    return mint_user_token(
        secret, principal, ttl_s=7200, audience="factorychain-api", now_s=reality.EPOCH_S
    )


@cache
def settings(layer: str, name: str, nats_replicas: int) -> Any:
    """Intervals short against a simulation, long against its latencies."""
    common: dict[str, Any] = {
        "listen": f"{name}:{LAYERS[layer]}",
        "rpc_timeout_s": 3.0,
        "drain_timeout_s": 5.0,
    }
    common["txn_jwks_file"] = keys() / "jwks.json"
    shared: dict[str, Any] = {
        "nats_timeout_s": 2.0,
        "user_secret_file": keys() / "secret",
        "nats_replicas": nats_replicas,
    }
    engine, agents, emitter, bridge = (f"{each}:{port}" for each, port in LAYERS.items())
    if layer == "engine":
        return EngineSettings(
            **common, **shared, agents_address=agents, emitter_address=emitter,
            txn_key_file=keys() / "key.pem", default_agent="walker", user_max_runs=USER_LIMIT,
            run_lifetime_s=RUN_LIFETIME_S, run_idle_s=12, cleanup_interval_s=1.5, heartbeat_ttl_s=4,
            agents_lost_after_s=AGENTS_LOST_AFTER_S,
            storage_look_s=3600,  # nobody deletes a bucket here
        )  # fmt: skip
    if layer == "agents":
        return AgentsSettings(
            **common, engine_address=engine, emitter_address=emitter, isolation="task",
            agent_modules=_AGENTS, cancel_grace_s=2.0, max_runs=2,  # full now and then
            outage_max_s=OUTAGE_MAX_S,
        )  # fmt: skip
    if layer == "emitter":
        return EmitterSettings(**common, bridge_address=bridge)
    return BridgeSettings(
        **common, **shared, engine_address=engine, frames_per_s=1000,
        storage_look_s=3600,  # nor the log
    )  # fmt: skip


def build(
    layer: str, name: str, network: Network, nats_replicas: int
) -> tuple[Server, ComponentGroup]:
    """A service, and what of it starts."""
    own = settings(layer, name, nats_replicas)
    if layer == "engine":
        engine = EngineServer(own)
        return engine, engine.group()
    if layer == "emitter":
        emitter = EmitterServer(own)
        return emitter, emitter.group()
    if layer == "agents":
        agents = AgentsServer(own)
        return agents, _without(agents.group(), agents.output, agents.executor)
    bridge = BridgeServer(own)
    network.listen(f"{name}:{EDGE_PORT}", lambda end: _serve_socket(bridge, end))
    return bridge, _without(bridge.group(), bridge.edge)


def held(server: Server | None) -> list[str]:
    """What a service still holds of runs."""
    found: dict[str, int] = {}
    if isinstance(server, EngineServer):
        found = {"supervised runs": len(server.runs), "link runs": server.link.runs}
    elif isinstance(server, AgentsServer):
        found = {"runs": len(server.runs), "link runs": server.link.runs}
    elif isinstance(server, EmitterServer):
        found = {"channels": server.link.channels, "link runs": server.bridge_link.runs}
    elif isinstance(server, BridgeServer):
        found = {"routes": server.bridge.statistics().routes}
    return [f"{number} {what}" for what, number in found.items() if number]


def _without(group: ComponentGroup, *left_out: object) -> ComponentGroup:
    """Those parts that would open files of the terminal, or ports."""
    kept = [each for each in group.components if each not in left_out]
    return ComponentGroup(kept, name=group.name, drain_timeout_s=group._drain_timeout_s)


def _serve_socket(bridge: BridgeServer, end: End) -> None:
    serving = bridge.edge.serve(cast("Transport", _Transport(end)))
    _ = asyncio.get_running_loop().create_task(serving, name="socket")


class _Frame(NamedTuple):
    """What aiohttp hands over."""

    type: WSMsgType
    data: str = ""


class _Transport:
    """What `EdgeSocket` uses of aiohttp's WebSocket."""

    on_too_big: Callable[[], None]

    def __init__(self, end: End) -> None:
        self._end = end
        self._frames: deque[_Frame] = deque()
        self._waiter: asyncio.Future[None] | None = None
        end.on_message = lambda text: self._put(_Frame(WSMsgType.TEXT, text))
        end.on_lost = lambda: self._put(_Frame(WSMsgType.CLOSED))

    def _put(self, frame: _Frame) -> None:
        self._frames.append(frame)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self) -> _Frame:
        while not self._frames:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._frames.popleft()

    async def send_frame(self, data: bytes, kind: WSMsgType) -> None:
        if not self._end.open:
            raise ConnectionError("the socket is gone")
        if kind is WSMsgType.TEXT:
            self._end.send(data)

    async def say_close(self, code: int, reason: str) -> None:
        self.abort()

    async def close(self, *, drain: bool = True) -> bool:
        self.abort()
        return True

    def abort(self) -> None:
        if self._end.open:
            self._end.close()
            self._put(_Frame(WSMsgType.CLOSED))
