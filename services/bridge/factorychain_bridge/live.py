"""One connected user on this replica: what NATS republishes for them, and the feeds that it goes to.

Invariant: one NATS subscription a user, which exists as long as the user is held or has a feed, and
which the server knows of before anybody relies on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from google.protobuf.message import DecodeError

from factorychain._core.ids import Principal, live_filter, thread_key
from factorychain._core.logging import get_logger
from factorychain._core.nats_connection import NatsConnection
from factorychain._core.nats_subscription import Subscription as NatsSubscription
from factorychain._core.stored import NatsUnavailable
from factorychain._core.telemetry import TRACEPARENT, SpanKind, counter, span
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain_bridge.feed import Deliveries, ThreadFeed
from factorychain_bridge.items import Stored
from factorychain_bridge.subscription import Subscription

log = get_logger(__name__)

LIVE_MAX_BYTES = 8 * 1024 * 1024
"""What may wait for one user in this process before live messages are dropped and read from the log."""

_received = counter("factorychain.bridge.live_received", "Live messages for subscribed threads")


class LiveMessage(Protocol):
    """What is used of a NATS message."""

    @property
    def subject(self) -> str: ...

    @property
    def data(self) -> bytes: ...

    @property
    def headers(self) -> Mapping[str, str] | None: ...


class LiveUser:
    """One user who is connected here, by any number of sockets and streams."""

    def __init__(
        self,
        principal: Principal,
        connection: NatsConnection,
        shared: Deliveries,
        on_unused: Callable[[LiveUser], None],
    ) -> None:
        self.principal = principal
        self.feeds: dict[str, ThreadFeed] = {}
        self._connection = connection
        self._shared = shared
        self._on_unused = on_unused
        self._holders = 0
        self._live: NatsSubscription | None = None
        self._opening: asyncio.Task[NatsUnavailable | None] | None = None

    @property
    def unused(self) -> bool:
        return not self._holders and not self.feeds

    # --- holding -------------------------------------------------------------------------------

    async def hold(self) -> None:
        """One holder more; returns when everything live arrives.

        Raises:
            NatsUnavailable: NATS is away; the user is not held.
        """
        self._holders += 1
        try:
            while self._live is None:
                if self._opening is None:
                    self._opening = self._shared.tasks.spawn(self._listen(), "listen")
                # Shielded: one who leaves must not take it from the others.
                problem = await asyncio.shield(self._opening)
                if problem is not None:
                    raise problem
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """One holder less."""
        self._holders -= 1
        self._let_go_if_unused()

    def _let_go_if_unused(self) -> None:
        if self.unused:
            self._on_unused(self)

    async def _listen(self) -> NatsUnavailable | None:
        try:
            live = await self._connection.subscribe(
                live_filter(self.principal.ukey),
                self.on_message,
                dropped=self.resync,
                max_bytes=LIVE_MAX_BYTES,
                # History is read over another connection: the server must know of this first.
                confirm=True,
            )
        except NatsUnavailable as error:
            return error
        finally:
            self._opening = None
        self._live = live
        if self.unused:  # all who wanted it have left meanwhile
            await self.close()
        return None

    async def close(self) -> None:
        """Hear nothing any more; may be called twice."""
        live, self._live = self._live, None
        if live is not None:
            await self._connection.unsubscribe(live)

    # --- feeds ---------------------------------------------------------------------------------

    def prepare(self, thread: str) -> Subscription:
        """A subscription to one of the user's threads."""
        tkey = thread_key(thread)
        feed = self.feeds.get(tkey)
        if feed is None:
            feed = ThreadFeed(self.principal, thread, self._shared, partial(self._drop_feed, tkey))
            self.feeds[tkey] = feed
        return feed.add()

    def _drop_feed(self, tkey: str) -> None:
        self.feeds.pop(tkey, None)
        self._let_go_if_unused()

    def resync(self) -> None:
        """Live messages may have been lost."""
        for feed in self.feeds.values():
            feed.resync()

    # --- live ----------------------------------------------------------------------------------

    def on_message(self, message: LiveMessage) -> None:
        """A message that the server has republished; parsed once, and only if somebody wants it."""
        feed = self.feeds.get(message.subject.rsplit(".", 1)[-1])
        stored = None if feed is None else _parse(message)
        if feed is None or stored is None:
            return
        _received.add()
        if not stored.batch.ends:
            feed.on_live(stored)
            return
        attributes = {"factorychain.run": stored.batch.run}
        with span(
            "bridge deliver", kind=SpanKind.CONSUMER, parent=stored.trace, attributes=attributes
        ):
            feed.on_live(stored)


def _parse(message: LiveMessage) -> Stored | None:
    headers = message.headers or {}
    try:
        stream_seq = int(headers["Nats-Sequence"])
        previous = int(headers.get("Nats-Last-Sequence", 0))
        batch = LogBatch.FromString(message.data)
    except (KeyError, ValueError, DecodeError):
        # The gap that it leaves is read from the log.
        log.exception("a live message cannot be read", subject=message.subject)
        return None
    return Stored(stream_seq, previous, batch, len(message.data), headers.get(TRACEPARENT, ""))
