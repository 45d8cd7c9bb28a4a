"""A real edge on a real port, with an engine of this test over real gRPC, and a hub of this test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import orjson
import pytest

from factorychain._core.ids import Principal, parse_run_id, run_id_for, thread_id_for
from factorychain._core.settings import BridgeSettings
from factorychain._core.status import abort
from factorychain._core.user_tokens import UserVerifier, mint_user_token
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.engine.v1 import engine_pb2_grpc
from factorychain.errors import (
    FactoryChainError,
    NotImplementedYet,
    RunNotFound,
    ThreadNotFound,
)
from factorychain.types.v1.event_pb2 import Event
from factorychain.types.v1.run_pb2 import RUN_STATE_CANCELLED, AgentInfo, Run, Thread
from factorychain_bridge.edge.engine import EngineClient
from factorychain_bridge.edge.http import Readiness
from factorychain_bridge.edge.outputs import SessionLimits
from factorychain_bridge.edge.server import EdgeServer, limits_of
from factorychain_bridge.items import (
    CaughtUp,
    Events,
    FeedItem,
    Reset,
    ResetReason,
    Sink,
    SubscribedAt,
)

SECRET = os.urandom(32)
AUDIENCE = "factorychain"
EPOCH = 1_763_800_000_000
A = Principal("default", "ana")
B = Principal("default", "ben")


async def until(holds: Callable[[], object]) -> None:
    """Wait until something holds, at most 5 s."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)


def token(principal: Principal = A, ttl_s: float = 3600, **changes: Any) -> str:
    return mint_user_token(
        changes.pop("secret", SECRET),
        principal,
        ttl_s=ttl_s,
        audience=changes.pop("audience", AUDIENCE),
        **changes,
    )


def batch(owner: Principal, thread: str, run: str, first_seq: int, *texts: str) -> LogBatch:
    found = LogBatch(
        tenant=owner.tenant,
        user=owner.user,
        thread=thread,
        run=run,
        epoch=EPOCH,
        first_seq=first_seq,
    )
    for text in texts:
        found.events.append(thinking(text))
    return found


def thinking(text: str) -> Event:
    event = Event(trace="")
    event.at.GetCurrentTime()
    event.agent_thinking.text = text
    return event


# --- hub -------------------------------------------------------------------------------------


class FakeSubscription:
    def __init__(self, hub: FakeHub, key: tuple[Principal, str]) -> None:
        self.hub = hub
        self.key = key
        self.at = SubscribedAt(0, 0, 0, "")
        self.sink: Sink | None = None
        self.closed = False
        self.after = 0
        self.kept: list[FeedItem] = []
        self.live = False

    def go(self) -> None:
        self.live = True
        kept, self.kept = self.kept, []
        for item in kept:
            self.give(item)

    def attach(self, sink: Sink, after: int, epoch: int) -> None:
        self.sink = sink
        self.after = after
        self.go()

    def cancel(self) -> None:
        self.close()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.hub.subscriptions[self.key].remove(self)

    def give(self, item: FeedItem) -> None:
        if not self.live:
            self.kept.append(item)
        elif self.sink is not None and not self.sink.deliver(item):
            self.close()


class FakeHub:
    """Keeps every thread in memory; delivers without checking whose it is."""

    def __init__(self) -> None:
        self.subscriptions: dict[tuple[Principal, str], list[FakeSubscription]] = {}
        self.log: dict[tuple[Principal, str], list[Events]] = {}
        self.connected: dict[Principal, int] = {}
        self.failure: FactoryChainError | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def connect(self, principal: Principal) -> FakeConnection:
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        self.connected[principal] = self.connected.get(principal, 0) + 1
        return FakeConnection(self, principal)

    def prepare(self, principal: Principal, thread: str) -> FakeSubscription:
        assert self.connected.get(principal)
        found = FakeSubscription(self, (principal, thread))
        self.subscriptions.setdefault((principal, thread), []).append(found)
        return found

    async def subscribe(
        self, principal: Principal, thread: str, after: int, epoch: int, sink: Sink
    ) -> FakeSubscription:
        found = self.prepare(principal, thread)
        await self.gate.wait()
        if self.failure is not None:
            found.close()
            raise self.failure
        found.sink = sink
        stored = self.log.get((principal, thread), [])
        last = stored[-1].last_seq if stored else 0
        found.at = SubscribedAt(1 if stored else 0, last, EPOCH if stored else 0, "")
        items: list[FeedItem] = []
        if stored and epoch not in (0, EPOCH):
            items.append(Reset(thread, EPOCH, ResetReason.EPOCH_CHANGED))
            after = 0
        items += [
            Events(each.batch, max(0, after + 1 - each.first_seq))
            for each in stored
            if each.last_seq > after
        ]
        found.kept[:0] = [*items, CaughtUp(thread, last)]
        return found

    def say(self, owner: Principal, thread: str, run: str, *texts: str) -> None:
        """Append events to a thread, and deliver them."""
        stored = self.log.setdefault((owner, thread), [])
        first_seq = stored[-1].last_seq + 1 if stored else 1
        item = Events(batch(owner, thread, run, first_seq, *texts), 0)
        stored.append(item)
        self.deliver(owner, thread, item)

    def deliver(self, to: Principal, thread: str, item: FeedItem) -> None:
        for each in tuple(self.subscriptions.get((to, thread), ())):
            each.give(item)

    def open_subscriptions(self) -> int:
        return sum(len(each) for each in self.subscriptions.values())


class FakeConnection:
    def __init__(self, hub: FakeHub, principal: Principal) -> None:
        self.hub = hub
        self.principal = principal

    def close(self) -> None:
        self.hub.connected[self.principal] -= 1


# --- engine ----------------------------------------------------------------------------------


class FakeEngine(engine_pb2_grpc.EngineServiceServicer):
    """Starts what it is told to start; verifies tokens as the real one does."""

    def __init__(self, hub: FakeHub) -> None:
        self.hub = hub
        self.verifier = UserVerifier(audience=AUDIENCE, secret=SECRET)
        self.starts: list[pb.StartRunRequest] = []
        self.traces: list[str] = []
        self.failure: FactoryChainError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.on_start: Callable[[Principal, str, str], None] = lambda *_: None
        self.existing = False
        self.after = 0
        self.cancelled: list[str] = []

    async def _user(self, context: Any) -> Principal:
        metadata = dict(context.invocation_metadata())
        self.traces.append(metadata.get("traceparent", ""))
        try:
            user = await self.verifier.verify(metadata["authorization"].removeprefix("Bearer "))
        except FactoryChainError as error:
            await abort(context, error)
        return user.principal

    async def StartRun(self, request: pb.StartRunRequest, context: Any) -> pb.StartRunResponse:  # noqa: N802
        user = await self._user(context)
        self.starts.append(request)
        await self.gate.wait()
        if self.failure is not None:
            await abort(context, self.failure)
        run = run_id_for(user, request.request_id)
        thread = request.thread or thread_id_for(run)
        self.on_start(user, thread, run)
        return pb.StartRunResponse(
            run=run, thread=thread, epoch=EPOCH, after=self.after, existing=self.existing
        )

    async def CancelRun(self, request: pb.CancelRunRequest, context: Any) -> pb.CancelRunResponse:  # noqa: N802
        await self._user(context)
        await self.gate.wait()
        try:
            parse_run_id(request.run)
        except FactoryChainError:
            await abort(context, RunNotFound())
        self.cancelled.append(request.run)
        return pb.CancelRunResponse(run=Run(run=request.run, state=RUN_STATE_CANCELLED))

    async def ListAgents(self, request: Any, context: Any) -> pb.ListAgentsResponse:  # noqa: N802
        await self._user(context)
        info = AgentInfo(name="researcher", description="Answers", available=True, is_default=True)
        return pb.ListAgentsResponse(agents=[info])

    async def ListThreads(self, request: pb.ListThreadsRequest, context: Any) -> Any:  # noqa: N802
        user = await self._user(context)
        threads = [Thread(thread=f"of-{user.user}", metadata_json='{"a":1}')]
        return pb.ListThreadsResponse(threads=threads, next_page_token=request.page_token)

    async def GetThread(self, request: pb.GetThreadRequest, context: Any) -> Any:  # noqa: N802
        user = await self._user(context)
        if request.thread != f"of-{user.user}":
            await abort(context, ThreadNotFound())
        return pb.GetThreadResponse(thread=Thread(thread=request.thread))

    async def GetUsage(self, request: Any, context: Any) -> pb.GetUsageResponse:  # noqa: N802
        await self._user(context)
        return pb.GetUsageResponse(max_active_runs=2, active_runs=1)

    async def GetKeys(self, request: Any, context: Any) -> pb.GetKeysResponse:  # noqa: N802
        return pb.GetKeysResponse(jwks_json='{"keys":[]}')

    async def _later(self, request: Any, context: Any) -> Any:
        await self._user(context)
        await abort(context, NotImplementedYet("this"))

    RespondToRun = UpdateThread = DeleteThread = RecordFeedback = _later
    GetRun = ListRuns = GetHistory = _later

    def WatchRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError


# --- the edge --------------------------------------------------------------------------------


@dataclass
class Chain:
    """An edge with everything around it."""

    edge: EdgeServer
    hub: FakeHub
    engine: FakeEngine
    http: aiohttp.ClientSession
    ready: bool = True
    peers: list[Peer] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.edge.address

    async def connect(self, **options: Any) -> Peer:
        options.setdefault("protocols", ("factorychain.v1.json",))
        options.setdefault("max_msg_size", 0)
        ws = await self.http.ws_connect(f"{self.url}/v1/ws", **options)
        peer = Peer(ws)
        self.peers.append(peer)
        return peer

    async def login(self, principal: Principal = A, **options: Any) -> Peer:
        peer = await self.connect(**options)
        await peer.send(op="auth", token=token(principal))
        assert (await peer.next())["op"] == "ready"
        return peer


class Peer:
    """A client that sees every frame."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    async def send(self, **frame: Any) -> None:
        await self.ws.send_str(orjson.dumps(frame).decode())

    async def next(self) -> dict[str, Any]:
        message = await self.ws.receive(timeout=5)
        assert message.type is aiohttp.WSMsgType.TEXT, (message, self.ws.close_code)
        found: dict[str, Any] = orjson.loads(message.data)
        return found

    async def ask(self, **frame: Any) -> dict[str, Any]:
        await self.send(**frame)
        return await self.next()

    async def closed(self) -> tuple[int | None, str, list[dict[str, Any]]]:
        """Reads on until the close: its code, its reason, and the frames before it."""
        frames = []
        while True:
            message = await self.ws.receive(timeout=8)
            if message.type is aiohttp.WSMsgType.TEXT:
                frames.append(orjson.loads(message.data))
            else:
                return self.ws.close_code, str(message.extra or ""), frames


Start = Callable[..., Any]


@pytest.fixture
async def start_chain(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts an edge with other limits or settings."""
    stops: list[Callable[[], Any]] = []

    async def start(**changes: Any) -> Chain:
        hub = FakeHub()
        engine = FakeEngine(hub)
        server = grpc.aio.server()
        engine_pb2_grpc.add_EngineServiceServicer_to_server(engine, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        settings = BridgeSettings(
            edge_listen="127.0.0.1:0",
            mode=changes.pop("mode", "development"),
            allowed_origins=changes.pop("allowed_origins", ("https://chat.example",)),
            drain_timeout_s=4.0,
        )
        limits: SessionLimits = replace(limits_of(settings), **changes)
        verifier = UserVerifier(audience=AUDIENCE, secret=SECRET)

        async def readiness() -> Readiness:
            return Readiness(found.ready, {"integration": "ACTIVE"})

        edge = EdgeServer(
            settings,
            verifier=verifier,
            hub=hub,
            connect=hub.connect,
            engine=EngineClient(channel, timeout_s=5),
            readiness=readiness,
            mint=token,
            limits=limits,
        )
        await edge.start()
        http = aiohttp.ClientSession()
        found = Chain(edge, hub, engine, http)
        stops.extend((lambda: server.stop(0), channel.close, edge.stop, http.close))
        return found

    yield start
    for stop in reversed(stops):
        await stop()


@pytest.fixture
async def chain(start_chain: Start) -> Chain:
    found: Chain = await start_chain()
    return found
