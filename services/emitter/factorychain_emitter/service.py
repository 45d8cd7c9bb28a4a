"""`EmitterService`: frames in, receipts out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from factorychain._core.link import LinkServer
from factorychain.emitter.v1.emitter_pb2 import EmitRequest, EmitResponse
from factorychain.emitter.v1.emitter_pb2_grpc import EmitterServiceServicer


class EmitterService(EmitterServiceServicer):
    """The link from agents and from the engine."""

    def __init__(self, link: LinkServer[EmitResponse]) -> None:
        self._link = link

    async def Emit(  # noqa: N802 - gRPC's name
        self,
        request_iterator: AsyncIterator[EmitRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[EmitResponse]:
        async for response in self._link.serve(request_iterator):
            yield response
