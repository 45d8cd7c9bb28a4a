"""The agents layer as the engine calls it: any replica for a new run, then the one that took it.

Invariant: a run counts as refused only if agents themselves answered so. Whatever else goes wrong
with a call (a broken connection, no answer in time) says nothing about the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol

import grpc

from factorychain._core.credentials import TXN_HEADER
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.grpc_client import GrpcChannel
from factorychain._core.logging import get_logger
from factorychain._core.status import DETAILS_KEY
from factorychain._core.telemetry import span
from factorychain.agents.v1 import agents_pb2, agents_pb2_grpc
from factorychain.agents.v1.agents_pb2 import RunAccepted
from factorychain.errors import (
    ChainDegraded,
    FactoryChainError,
    RunExists,
    TokenExpired,
    TokenInvalid,
)
from factorychain.types.v1.run_pb2 import AgentInfo
from factorychain_engine.agents_layer import Life, NotAccepted
from factorychain_engine.lifeline import Sign

log = get_logger(__name__)

LAYER: Final = "agents"
READY_WITHIN_S: Final = 1.0
KEPT_CHANNELS: Final = 32

Message = agents_pb2.ExecuteResponse | agents_pb2.AttachResponse


class LifeCall(Protocol):
    """A stream of Execute or Attach."""

    async def read(self) -> object: ...

    def cancel(self) -> bool: ...


class StreamedLife:
    """The life of a run on one stream (`agents_layer.Life`)."""

    def __init__(self, call: LifeCall, accepted: RunAccepted, let_go: Callable[[], None]) -> None:
        self.accepted = accepted
        self._call = call
        self._let_go = let_go
        self._finished = False
        self._closed = False

    async def next_sign(self) -> Sign | None:
        while True:
            message = await _read(self._call)
            kind = message.WhichOneof("life")
            if kind == "finished":
                self._finished = True
                return None
            if kind == "alive":
                alive = message.alive
                return Sign(alive.idle_ms / 1000, alive.waited_ms / 1000, alive.waiting)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if not self._finished:  # else it ends by itself
                self._call.cancel()
            self._let_go()


class _Peer:
    """One address of the agents layer."""

    def __init__(self, channel: GrpcChannel) -> None:
        self.channel = channel
        self.stub = agents_pb2_grpc.AgentsServiceStub(channel.channel)
        self.users = 0

    def let_go(self) -> None:
        self.users -= 1


class AgentsPeers:
    """A component: the channels to the agents layer."""

    name = "agents"

    def __init__(
        self, address: str, connect: Callable[[str], GrpcChannel], answer_within_s: float
    ) -> None:
        """`connect` makes a channel to an address; `address` is that of the layer as a whole."""
        self._address = address
        self._connect = connect
        self._answer_within_s = answer_within_s
        self._layer = _Peer(connect(address))
        self._replicas: dict[str, _Peer] = {}

    @property
    def healthy(self) -> bool:
        return True

    async def start(self) -> None:
        await self._layer.channel.start()

    async def stop(self) -> None:
        peers = [self._layer, *self._replicas.values()]
        self._replicas.clear()
        for peer in peers:
            await peer.channel.stop()

    async def ready(self) -> None:
        """Return when a replica is connected.

        Raises:
            ChainDegraded: none is.
        """
        if self._layer.channel.connected:
            return
        channel = self._layer.channel.channel
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                await channel.channel_ready()
        except TimeoutError:
            raise ChainDegraded(LAYER) from None

    async def list_agents(self) -> Sequence[AgentInfo]:
        """The agents of one replica; all have the same.

        Raises:
            ChainDegraded: the layer is away.
        """
        listed = await self._layer.stub.ListAgents(agents_pb2.ListAgentsRequest())
        return list(listed.agents)

    async def execute(
        self, context: UserExecutionContext, request: agents_pb2.ExecuteRequest, trace: str
    ) -> Life:
        """Have the run executed; returns when it was accepted (`agents_layer.Agents`)."""
        with span("execute_run", parent=trace):
            call = self._layer.stub.Execute(request, metadata=_metadata(context))
            try:
                return await self._accepted(call, self._layer)
            except RunExists as error:
                # It was accepted before: the same call came twice.
                raise ChainDegraded(LAYER) from error
            except FactoryChainError as error:
                if _was_answered(error):
                    raise NotAccepted(_for_the_user(error)) from error
                raise

    async def attach(self, context: UserExecutionContext, address: str, trace: str) -> Life:
        """Follow a run that was accepted at `address` (`agents_layer.Agents`)."""
        async with self._peer(address) as peer:
            with span("attach_run", parent=trace):
                call = peer.stub.Attach(agents_pb2.AttachRequest(), metadata=_metadata(context))
                return await self._accepted(call, peer)

    async def cancel(
        self, context: UserExecutionContext, address: str, reason: str, trace: str
    ) -> None:
        """Tell the agent to stop (`agents_layer.Agents`)."""
        async with self._peer(address) as peer:
            with span("cancel_run", parent=trace):
                request = agents_pb2.CancelRequest(reason=reason)
                # Its answer, empty, says that the agent's code was told.
                await peer.stub.Cancel(request, metadata=_metadata(context))

    async def respond(
        self,
        context: UserExecutionContext,
        address: str,
        request: str,
        value_json: str,
        trace: str,
    ) -> None:
        """Hand over the user's answer (`agents_layer.Agents`)."""
        async with self._peer(address) as peer:
            with span("respond_to_run", parent=trace):
                answer = agents_pb2.RespondRequest(request=request, value_json=value_json)
                try:
                    await peer.stub.Respond(answer, metadata=_metadata(context))
                except FactoryChainError as error:
                    raise _for_the_user(error) from error

    async def renew(self, context: UserExecutionContext, address: str, trace: str) -> None:
        """Give the run a later token (`agents_layer.Agents`)."""
        async with self._peer(address) as peer:
            with span("renew_run", parent=trace):
                # Its answer, empty, says that the run has the token.
                await peer.stub.Renew(agents_pb2.RenewRequest(), metadata=_metadata(context))

    async def _accepted(self, call: LifeCall, peer: _Peer) -> Life:
        try:
            async with asyncio.timeout(self._answer_within_s):
                message = await _read(call)
        except TimeoutError:
            raise ChainDegraded(LAYER) from None
        except BaseException:
            call.cancel()
            raise
        if message.WhichOneof("life") != "accepted":
            call.cancel()
            raise ChainDegraded(LAYER)
        peer.users += 1
        return StreamedLife(call, message.accepted, peer.let_go)

    @asynccontextmanager
    async def _peer(self, address: str) -> AsyncIterator[_Peer]:
        """The replica at `address`, kept open while it is used."""
        peer = self._find(address)
        peer.users += 1
        try:
            yield peer
        finally:
            peer.users -= 1
            await self._close_unused()

    def _find(self, address: str) -> _Peer:
        if address in ("", self._address):
            return self._layer
        peer = self._replicas.pop(address, None) or _Peer(self._connect(address))
        self._replicas[address] = peer  # the last used stands last
        return peer

    async def _close_unused(self) -> None:
        excess = len(self._replicas) - KEPT_CHANNELS
        for address, peer in list(self._replicas.items())[: max(0, excess)]:
            if peer.users == 0:
                del self._replicas[address]
                await peer.channel.stop()


async def _read(call: LifeCall) -> Message:
    """The next message.

    Raises:
        ChainDegraded: the stream has ended or broke.
        FactoryChainError: agents ended it with this error.
    """
    try:
        message = await call.read()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # grpc.aio raises this in the reader when somebody else closed the channel.
        raise ChainDegraded(LAYER) from None
    if not isinstance(message, agents_pb2.ExecuteResponse | agents_pb2.AttachResponse):
        raise ChainDegraded(LAYER)  # grpc.aio.EOF
    return message


def _was_answered(error: FactoryChainError) -> bool:
    cause = error.__cause__
    if not isinstance(cause, grpc.aio.AioRpcError):
        return False
    return any(key == DETAILS_KEY for key, _ in cause.trailing_metadata() or ())


def _for_the_user(error: FactoryChainError) -> FactoryChainError:
    """Agents that do not accept this engine's tokens are a fault of the chain, not of the caller."""
    if isinstance(error, TokenInvalid | TokenExpired):
        log.error("the agents refuse our tokens", reason=error.reason, message=error.message)
        return ChainDegraded(LAYER)
    return error


def _metadata(context: UserExecutionContext) -> tuple[tuple[str, str], ...]:
    return ((TXN_HEADER, context.token),)
