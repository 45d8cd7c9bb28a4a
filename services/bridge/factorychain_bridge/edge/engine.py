"""The engine as the edge calls it: each call carries the token of the user who asked for it."""

from __future__ import annotations

from typing import Protocol

import grpc.aio
from google.protobuf.message import Message

from factorychain._core.status import from_rpc_error
from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.engine.v1.engine_pb2_grpc import EngineServiceStub

CANCEL_TIMEOUT_S = 60.0
"""CancelRun answers when the run has ended, which an agent may put off for its grace time. A start
that interrupts waits for the same, and is answered only when its own run has begun."""


class Engine(Protocol):
    """Calls of `EngineService`."""

    async def call(self, method: str, request: Message, token: str) -> Message:
        """One unary call in the name of the token's user.

        Raises:
            FactoryChainError: The engine refused, or is away.
        """

    async def start(self, request: pb.StartRunRequest, token: str) -> pb.StartRunResponse:
        """`StartRun`; raises as `call` does."""


class EngineClient:
    """`Engine` over a channel."""

    def __init__(self, channel: grpc.aio.Channel, timeout_s: float) -> None:
        self._stub = EngineServiceStub(channel)
        self._timeout_s = timeout_s

    async def call(self, method: str, request: Message, token: str) -> Message:
        timeout_s = CANCEL_TIMEOUT_S if method == "CancelRun" else self._timeout_s
        if method == "RespondToRun":  # which may start a run, as `start` does
            timeout_s *= 2
        call = getattr(self._stub, method)
        try:
            found: Message = await call(request, metadata=_metadata(token), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return found

    async def start(self, request: pb.StartRunRequest, token: str) -> pb.StartRunResponse:
        # The engine asks agents for as long itself. Who stops waiting before it has decided tells the
        # user that nothing has begun, while their run does.
        timeout_s = 2 * self._timeout_s
        if request.on_busy == pb.ON_BUSY_INTERRUPT:
            timeout_s = max(timeout_s, CANCEL_TIMEOUT_S)
        try:
            return await self._stub.StartRun(request, metadata=_metadata(token), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error


def _metadata(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)
