"""`BridgeService`: protobuf in, the bridge's own calls, protobuf out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, closing
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from factorychain._core.credentials import current_user, current_user_token
from factorychain._core.ids import parse_thread_id
from factorychain._core.link import LinkServer
from factorychain.bridge.v1 import bridge_pb2 as pb
from factorychain.bridge.v1.bridge_pb2_grpc import BridgeServiceServicer
from factorychain.errors import ChainDegraded, InvalidField
from factorychain_bridge.bridge import AgentWebSocketBridge
from factorychain_bridge.stream_sink import StreamSink

Context = grpc.aio.ServicerContext[Any, Any]

ThreadOfRun = Callable[[str, str], Awaitable[str]]
"""The thread of a run that is not open here, by run and user token; raises RunNotFound."""

CheckThread = Callable[[str, str], Awaitable[None]]
"""That a thread is the token's user's, by thread and user token; raises ThreadNotFound."""

_MAX_SEQ = 2**53


class BridgeService(BridgeServiceServicer):
    """The service. `drain` ends its long streams, which resume elsewhere."""

    def __init__(
        self,
        bridge: AgentWebSocketBridge,
        link: LinkServer[pb.PublishResponse],
        thread_of_run: ThreadOfRun,
        check_thread: CheckThread,
        *,
        queue_bytes: int,
    ) -> None:
        self._bridge = bridge
        self._link = link
        self._thread_of_run = thread_of_run
        self._check_thread = check_thread
        self._queue_bytes = queue_bytes
        self._draining = asyncio.Event()
        self._readers: set[asyncio.Task[Any]] = set()
        self._sinks: set[StreamSink] = set()

    def drain(self) -> None:
        """Take no more frames and end subscriptions; what was taken is still answered."""
        self._draining.set()
        for reader in self._readers:
            reader.cancel()
        for sink in self._sinks:
            sink.end(ChainDegraded("bridge", message="this replica is stopping; resume elsewhere"))

    # --- calls ---------------------------------------------------------------------------------

    async def Publish(  # noqa: N802 - gRPC's name
        self, request_iterator: AsyncIterator[pb.PublishRequest], context: Context
    ) -> AsyncIterator[pb.PublishResponse]:
        serving = self._link.serve(self._until_drain(request_iterator))
        # Closed with the call: left to the garbage collector its runs would stay open until then.
        async with aclosing(serving) as responses:
            async for response in responses:
                yield response

    async def Subscribe(  # noqa: N802 - gRPC's name
        self, request: pb.SubscribeRequest, context: Context
    ) -> AsyncIterator[pb.SubscribeResponse]:
        principal = current_user().principal
        thread = parse_thread_id(request.thread)
        if request.after > _MAX_SEQ:
            raise InvalidField("after", "must be the seq of an event, below 2^53")
        sink = StreamSink(principal, self._queue_bytes)
        self._sinks.add(sink)
        try:
            with closing(await self._bridge.hub.connect(principal)):
                subscription = await self._bridge.subscribe(
                    principal, thread, request.after, request.epoch, sink
                )
                with closing(subscription):
                    if subscription.at.last == 0:
                        # Nothing in the log: the caller's, aged out or just begun, or nobody's.
                        await self._check_thread(thread, current_user_token())
                    subscription.go()
                    while True:
                        yield await sink.next()
        finally:
            self._sinks.discard(sink)

    async def ResolveRun(  # noqa: N802 - gRPC's name
        self, request: pb.ResolveRunRequest, context: Context
    ) -> pb.ResolveRunResponse:
        thread = self._bridge.thread_of(current_user().principal, request.run)
        if thread is None:
            thread = await self._thread_of_run(request.run, current_user_token())
        return pb.ResolveRunResponse(thread=thread)

    async def GetIntegration(  # noqa: N802 - gRPC's name
        self, request: pb.GetIntegrationRequest, context: Context
    ) -> pb.GetIntegrationResponse:
        found = self._bridge.integration
        since = Timestamp()
        since.FromMilliseconds(int(found.since_s * 1000))
        return pb.GetIntegrationResponse(
            state=pb.IntegrationState.Value(f"INTEGRATION_STATE_{found.state.value}"),
            cause=found.cause,
            since=since,
            recovery_attempts=found.attempts,
            transitions=found.transitions,
        )

    # --- steps ---------------------------------------------------------------------------------

    async def _until_drain(
        self, requests: AsyncIterator[pb.PublishRequest]
    ) -> AsyncIterator[pb.PublishRequest]:
        """The requests; they end at the drain, whatever the sender does. The link reads them in a
        task of its own, which is what is cancelled.
        """
        if self._draining.is_set():
            return
        reader = asyncio.current_task()
        assert reader is not None, "a coroutine runs in a task"
        self._readers.add(reader)
        try:
            async for request in requests:
                yield request
        except asyncio.CancelledError:
            if not self._draining.is_set() or reader.uncancel():
                raise
        finally:
            self._readers.discard(reader)
