"""A bridge that keeps its log in memory and speaks the real `Publish` over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from factorychain._core.credentials import Authenticator, VerifiedUser
from factorychain._core.event_kinds import ENDINGS
from factorychain._core.execution_context import Scope, UserExecutionContext
from factorychain._core.grpc_client import GrpcChannel
from factorychain._core.grpc_server import GrpcServer, Service
from factorychain._core.keys import TxnKey
from factorychain._core.link import ChannelHandler, LinkClient, LinkServer, Receipts
from factorychain._core.settings import TransportSettings
from factorychain._core.txn_tokens import TxnSigner, TxnVerifier
from factorychain.bridge.v1 import bridge_pb2, bridge_pb2_grpc
from factorychain.errors import ChainDegraded, FactoryChainError, RunEnded
from factorychain.types.v1.event_pb2 import Event
from factorychain.types.v1.link_pb2 import RunOpen
from tests.token_samples import TRUST_DOMAIN, Keys, issued, key_set


class Tokens:
    """Signs and verifies the tokens of a test."""

    def __init__(self) -> None:
        key = TxnKey.generate()
        self.signer = TxnSigner(key, TRUST_DOMAIN)
        self.verifier = TxnVerifier(Keys(key_set(key)), TRUST_DOMAIN)

    def context(self, run: str, scope: Scope = Scope.RUN) -> UserExecutionContext:
        """A context for a run named by one letter or more of a-z and 2-7."""
        return issued(
            self.signer,
            run="r" + run.ljust(24, "a"),
            thread=f"t-{run}",
            scope=scope,
            deadline_s=time.time() + 300,
            limits={},
        )

    def verify(self, token: str) -> UserExecutionContext:
        return self.verifier.verify(token, {Scope.RUN, Scope.LIFECYCLE})


@dataclass
class MemoryLog:
    """What the bridge has made durable, by run."""

    runs: dict[str, list[tuple[int, Event]]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    opened: list[RunOpen] = field(default_factory=list)
    refuse_openings_with: FactoryChainError | None = None
    """Every opening is refused with this while it is set."""
    acknowledging: bool = True
    """Whether what is durable is also acknowledged."""
    channels: set[MemoryChannel] = field(default_factory=set)
    before_write: Callable[[], None] = lambda: None

    def durable(self, run: str) -> int:
        return max((run_seq for run_seq, _ in self.runs.get(run, [])), default=0)

    def ended(self, run: str) -> bool:
        return any(event.WhichOneof("event") in ENDINGS for _, event in self.runs.get(run, []))

    def kinds(self, run: str) -> list[str]:
        return [event.WhichOneof("event") or "" for _, event in self.runs.get(run, [])]

    def events(self, run: str) -> list[Event]:
        return [event for _, event in self.runs.get(run, [])]

    def run_seqs(self, run: str) -> list[int]:
        return [run_seq for run_seq, _ in self.runs.get(run, [])]

    def append(self, run: str, batch: list[tuple[int, bytes]]) -> None:
        """Drops what is there already; several of one run_seq stand or fall together."""
        durable = self.durable(run)
        log = self.runs.setdefault(run, [])
        log += [
            (run_seq, Event.FromString(event))
            for run_seq, event in batch
            if not run_seq or run_seq > durable
        ]
        self.changed.set()

    def acknowledge(self) -> None:
        """Acknowledges what is durable, from now on and for what came before."""
        self.acknowledging = True
        for channel in self.channels:
            channel.acknowledge()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()


class MemoryChannel:
    """One open run."""

    def __init__(self, log: MemoryLog, ctx: UserExecutionContext, receipts: Receipts) -> None:
        self.durable_run_seq = log.durable(ctx.run)
        self._log = log
        self._run = ctx.run
        self._receipts = receipts
        self.contexts = [ctx]
        log.channels.add(self)

    async def wait_opened(self) -> None:
        """What is durable is in memory."""

    def events(self, events: list[tuple[int, bytes]]) -> None:
        self._log.before_write()
        self._log.append(self._run, events)
        if self._log.acknowledging:
            self.acknowledge()

    def acknowledge(self) -> None:
        durable, ended = self._log.durable(self._run), self._log.ended(self._run)
        self._receipts.acknowledged(durable, ended)

    def renewed(self, ctx: UserExecutionContext) -> None:
        self.contexts.append(ctx)
        self._log.changed.set()

    def close(self) -> None:
        self._log.channels.discard(self)


async def _unused(self: object, request: object, context: object) -> NoReturn:
    raise NotImplementedError


class MemoryBridge(bridge_pb2_grpc.BridgeServiceServicer):
    """Serves `Publish` into a log that outlives it."""

    def __init__(self, log: MemoryLog, tokens: Tokens, window_bytes: int) -> None:
        self.log = log
        self.link = LinkServer(
            "bridge",
            self,
            tokens.verify,
            lambda receipts: bridge_pb2.PublishResponse(receipts=receipts),
            window_bytes=window_bytes,
        )

    def open(
        self, ctx: UserExecutionContext, opening: RunOpen, receipts: Receipts
    ) -> ChannelHandler:
        self.log.opened.append(opening)
        self.log.changed.set()
        if self.log.refuse_openings_with is not None:
            raise self.log.refuse_openings_with
        if self.log.ended(ctx.run):
            raise RunEnded
        return MemoryChannel(self.log, ctx, receipts)

    async def Publish(  # noqa: N802 - gRPC's name
        self,
        request_iterator: AsyncIterator[bridge_pb2.PublishRequest],
        context: object,
    ) -> AsyncIterator[bridge_pb2.PublishResponse]:
        async for response in self.link.serve(request_iterator):
            yield response

    # Other calls of the bridge: no test here makes one.
    Subscribe = ResolveRun = GetIntegration = _unused  # type: ignore[assignment]


@dataclass
class BridgeHost:
    """A bridge at an address that stays, whatever happens to the bridge."""

    path: Path
    tokens: Tokens = field(default_factory=Tokens)
    log: MemoryLog = field(default_factory=MemoryLog)
    window_bytes: int = 256 * 1024
    server: GrpcServer | None = None
    bridge: MemoryBridge | None = None

    @property
    def address(self) -> str:
        return f"unix:{self.path}"

    async def start(self) -> None:
        self.bridge = MemoryBridge(self.log, self.tokens, self.window_bytes)
        service = Service(
            bridge_pb2.DESCRIPTOR.services_by_name["BridgeService"],
            bridge_pb2_grpc.add_BridgeServiceServicer_to_server,
            self.bridge,
        )
        self.server = GrpcServer(
            TransportSettings(listen=self.address),
            [service],
            Authenticator(users=_NoUsers(), txns=self.tokens.verifier),
            drain_timeout_s=0,
        )
        await self.server.start()

    async def kill(self) -> None:
        if self.server is not None:
            await self.server.stop()
            self.server = None


class _NoUsers:
    """No user has a token here."""

    async def verify(self, token: str) -> VerifiedUser:
        raise ChainDegraded("users")

    def verify_cached(self, token: str) -> None:
        return None


@asynccontextmanager
async def link_to(address: str) -> AsyncIterator[LinkClient[bridge_pb2.PublishRequest]]:
    """A started link to a bridge."""
    channel = GrpcChannel(address, "bridge", TransportSettings())
    stub = bridge_pb2_grpc.BridgeServiceStub(channel.channel)
    link = LinkClient(
        "to bridge",
        stub.Publish,
        lambda frames: bridge_pb2.PublishRequest(frames=frames),
    )
    await channel.start()
    await link.start()
    try:
        yield link
    finally:
        await link.stop()
        await channel.stop()


@asynccontextmanager
async def bridge_at(path: Path, window_bytes: int = 256 * 1024) -> AsyncIterator[BridgeHost]:
    """A started bridge on a Unix socket."""
    host = BridgeHost(path, window_bytes=window_bytes)
    await host.start()
    try:
        yield host
    finally:
        await host.kill()
