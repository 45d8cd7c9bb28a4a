"""The life of a run as the stream of Execute or Attach tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from factorychain.agents.v1 import agents_pb2
from factorychain.agents.v1.agents_pb2 import RunAccepted
from factorychain.errors import ChainDegraded
from factorychain_engine.agents.replicas import LAYER
from factorychain_engine.lifeline import Sign

Message = agents_pb2.ExecuteResponse | agents_pb2.AttachResponse


class LifeCall(Protocol):
    """A stream of Execute or Attach."""

    async def read(self) -> object: ...

    def cancel(self) -> bool: ...


class StreamedLife:
    """The life of a run on one stream (`layer.Life`)."""

    def __init__(
        self,
        call: LifeCall,
        accepted: RunAccepted,
        let_go: Callable[[], None],
        over: Callable[[], None],
    ) -> None:
        """`let_go` is called when the stream is no longer used, `over` when the run has finished."""
        self.accepted = accepted
        self._call = call
        self._let_go = let_go
        self._over = over
        self._finished = False
        self._closed = False

    async def next_sign(self) -> Sign | None:
        while True:
            message = await read_life(self._call)
            kind = message.WhichOneof("life")
            if kind == "finished":
                self._finished = True
                self._over()
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


async def read_life(call: LifeCall) -> Message:
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
