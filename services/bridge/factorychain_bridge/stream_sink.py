"""A gRPC subscriber as a sink: items wait here, bounded, until its stream can take them.

Invariant: what waits is at most `max_bytes` and one item; who does not keep up is told so
(SLOW_CONSUMER) and resumes from its last seq, nothing is dropped silently.
"""

from __future__ import annotations

import asyncio
from collections import deque

from factorychain._core.ids import Principal
from factorychain.bridge.v1.bridge_pb2 import CaughtUp as CaughtUpMessage
from factorychain.bridge.v1.bridge_pb2 import SubscribeResponse, ThreadEvents, ThreadReset
from factorychain.errors import ChainDegraded, FactoryChainError, SlowConsumer
from factorychain_bridge.items import CaughtUp, Events, FeedItem, StopReason

_ITEM_BYTES = 128


class StreamSink:
    """The items of one subscription of one stream."""

    def __init__(self, principal: Principal, max_bytes: int) -> None:
        self._principal = principal
        self._max_bytes = max_bytes
        self._items: deque[tuple[FeedItem, int]] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._error: FactoryChainError | None = None

    @property
    def principal(self) -> Principal:
        return self._principal

    # --- the hub's side ------------------------------------------------------------------------

    def deliver(self, item: FeedItem) -> bool:
        if self._error is not None:
            return False
        if self._waiting_bytes > self._max_bytes:
            self.end(SlowConsumer())
            return False
        size_bytes = item.batch.ByteSize() if isinstance(item, Events) else _ITEM_BYTES
        self._items.append((item, size_bytes))
        self._waiting_bytes += size_bytes
        self._arrived.set()
        return True

    async def room(self) -> None:
        while self._waiting_bytes > self._max_bytes // 2 and self._error is None:
            self._taken.clear()
            await self._taken.wait()

    def stop(self, why: StopReason) -> None:
        # Nothing that waits is written any more: what was queued before may be wrong too.
        self._items.clear()
        self.end(ChainDegraded("bridge", message=f"the subscription was ended: {why}"))

    def end(self, error: FactoryChainError) -> None:
        """End the stream with `error`, after what waits."""
        self._error = self._error or error
        self._arrived.set()
        self._taken.set()

    # --- the stream's side ---------------------------------------------------------------------

    async def next(self) -> SubscribeResponse:
        """The next message.

        Raises:
            FactoryChainError: The subscription is over.
        """
        while not self._items:
            if self._error is not None:
                raise self._error
            self._arrived.clear()
            await self._arrived.wait()
        item, size_bytes = self._items.popleft()
        self._waiting_bytes -= size_bytes
        self._taken.set()
        return _response(item)


def _response(item: FeedItem) -> SubscribeResponse:
    if isinstance(item, Events):
        return SubscribeResponse(events=_events(item))
    if isinstance(item, CaughtUp):
        return SubscribeResponse(caught_up=CaughtUpMessage(seq=item.seq))
    return SubscribeResponse(reset=ThreadReset(epoch=item.epoch, reason=item.reason.value))


def _events(item: Events) -> ThreadEvents:
    message = ThreadEvents(thread=item.thread, epoch=item.epoch, events=item.events())
    for seq, event in enumerate(message.events, item.first_seq):
        event.seq = seq
        event.run = item.run
    return message
