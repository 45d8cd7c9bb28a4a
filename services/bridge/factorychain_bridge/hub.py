"""Live delivery: who is connected here, what NATS republishes for them, and the feeds of their threads.

One core subscription a connected user and replica (`live.*.<user key>.*`), made when the first socket
of a user is authenticated, so that neither a start nor a subscription waits for one.

Invariant: a user, a feed or a NATS subscription exists here only as long as somebody holds it.

    user = await hub.connect(principal)              # at the socket's auth; user.close() at its end
    subscription = await hub.subscribe(principal, thread, after, epoch, sink)
    send(reply(subscription.at)); subscription.go()  # nothing is delivered before go()
    pending = hub.prepare(principal, thread)         # before StartRun: keeps what arrives
    send(reply(...)); pending.attach(sink, after, epoch)     # or pending.cancel()
    subscription.close()
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import DecodeError

from factorychain._core.component import TaskSet
from factorychain._core.ids import Principal, live_filter, thread_key
from factorychain._core.logging import get_logger
from factorychain._core.nats_connection import NatsConnection, NatsState
from factorychain._core.nats_connection import Subscription as NatsSubscription
from factorychain._core.stored import NatsUnavailable
from factorychain._core.telemetry import TRACEPARENT, SpanKind, counter, span
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain_bridge.feed import Deliveries, History, ThreadFeed
from factorychain_bridge.items import (
    CaughtUp,
    Events,
    FeedItem,
    Reset,
    ResetReason,
    Sink,
    Stored,
    SubscribedAt,
)
from factorychain_bridge.subscription import Subscription

__all__ = [
    "CaughtUp",
    "Connected",
    "Events",
    "FeedItem",
    "Hub",
    "HubStatistics",
    "Reset",
    "ResetReason",
    "Sink",
    "SubscribedAt",
    "Subscription",
]

log = get_logger(__name__)

LIVE_MAX_BYTES = 8 * 1024 * 1024
"""What may wait for one user in this process before live messages are dropped and read from the log."""
_POLLS_AT_ONCE = 16

_mismatches = counter(
    "factorychain.bridge.principal_mismatch", "Events that were about to reach another principal"
)
_lost = counter("factorychain.bridge.live_lost", "Lost live messages that a poll has discovered")
_received = counter("factorychain.bridge.live_received", "Live messages for subscribed threads")


class LiveMessage(Protocol):
    """What is used of a NATS message."""

    subject: str
    data: bytes

    @property
    def headers(self) -> Mapping[str, str] | None: ...


@dataclass(frozen=True, slots=True)
class HubStatistics:
    """What a hub holds now."""

    users: int
    feeds: int
    subscriptions: int


class Connected:
    """A user's live traffic on this replica, held until `close`."""

    def __init__(self, hub: Hub, user: _User) -> None:
        self._hub = hub
        self._user: _User | None = user

    def close(self) -> None:
        """Let go; may be called twice."""
        user, self._user = self._user, None
        if user is not None:
            self._hub.release(user)


class _User:
    """One user who is connected here."""

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.holders = 0
        self.feeds: dict[str, ThreadFeed] = {}
        self.live: NatsSubscription | None = None
        self.opening: asyncio.Task[NatsSubscription] | None = None


class Hub:
    """A component. `live` is the connection for live traffic and nothing else."""

    name = "hub"

    def __init__(
        self,
        live: NatsConnection,
        history: History,
        *,
        poll_s: float = 2.0,
        buffer_max_bytes: int = 256 * 1024,
    ) -> None:
        self._connection = live
        self._poll_s = poll_s
        self._users: dict[str, _User] = {}
        self._tasks = TaskSet(self.name)
        self._polling: asyncio.Task[None] | None = None
        self._shared = Deliveries(
            history, self._tasks, buffer_max_bytes, on_breach=_mismatches.add, on_lost=_lost.add
        )
        live.on_state(self._on_state)

    # --- component -----------------------------------------------------------------------------

    @property
    def healthy(self) -> bool:
        return self._tasks.healthy

    async def start(self) -> None:
        self._polling = self._tasks.spawn(self._poll_forever(), "polls")

    async def stop(self) -> None:
        await self._tasks.close()
        users, self._users = list(self._users.values()), {}
        for user in users:
            if user.live is not None:
                await self._connection.unsubscribe(user.live)

    def statistics(self) -> HubStatistics:
        feeds = list(self._feeds())
        return HubStatistics(
            len(self._users), len(feeds), sum(each.subscriptions for each in feeds)
        )

    # --- for sockets and streams ---------------------------------------------------------------

    async def connect(self, principal: Principal) -> Connected:
        """Receive what is live for the user, from now until the result is closed.

        Raises:
            NatsUnavailable: NATS is away.
        """
        user = self._users.get(principal.ukey)
        if user is None:
            user = self._users[principal.ukey] = _User(principal)
        user.holders += 1
        try:
            await self._listen(user)
        except BaseException:
            self.release(user)
            raise
        return Connected(self, user)

    async def subscribe(
        self, principal: Principal, thread: str, after: int, epoch: int, sink: Sink
    ) -> Subscription:
        """A subscription of `sink`, which has everything up to `after` of `epoch` (0: not known).

        Nothing is delivered before its `go()`. The user must be connected.

        Raises:
            NatsUnavailable: The thread could not be read.
        """
        subscription = self.prepare(principal, thread)
        try:
            await subscription.locate(after, epoch, sink)
        except BaseException:
            subscription.close()
            raise
        return subscription

    def prepare(self, principal: Principal, thread: str) -> Subscription:
        """A subscription that keeps what arrives until its `attach`. The user must be connected."""
        user = self._users.get(principal.ukey)
        if user is None:
            raise RuntimeError("connect the user before subscribing to a thread of theirs")
        tkey = thread_key(thread)
        feed = user.feeds.get(tkey)
        if feed is None:
            feed = ThreadFeed(
                user.principal, thread, self._shared, lambda: self._drop_feed(user, tkey)
            )
            user.feeds[tkey] = feed
        return feed.add()

    # --- users ---------------------------------------------------------------------------------

    async def _listen(self, user: _User) -> None:
        if user.live is not None:
            return
        if user.opening is None:
            user.opening = asyncio.ensure_future(
                self._connection.subscribe(
                    live_filter(user.principal.ukey),
                    lambda message: self.on_message(user, message),
                    dropped=lambda: self._resync(user),
                    max_bytes=LIVE_MAX_BYTES,
                    # Reads go over another connection: the server must have the interest first.
                    confirm=True,
                )
            )
        opening = user.opening
        try:
            user.live = await asyncio.shield(opening)
        finally:
            if opening.done() and user.opening is opening:
                user.opening = None

    def release(self, user: _User) -> None:
        """One holder less."""
        user.holders -= 1
        self._drop_user_if_unused(user)

    def _drop_feed(self, user: _User, tkey: str) -> None:
        user.feeds.pop(tkey, None)
        self._drop_user_if_unused(user)

    def _drop_user_if_unused(self, user: _User) -> None:
        if user.holders > 0 or user.feeds:
            return
        if self._users.get(user.principal.ukey) is user:
            del self._users[user.principal.ukey]
        live, user.live = user.live, None
        if live is not None:
            live.closed = True  # at once; the server is told in the background
            _ = self._tasks.spawn(self._connection.unsubscribe(live), "unsubscribe")

    def _feeds(self) -> Iterator[ThreadFeed]:
        for user in self._users.values():
            yield from user.feeds.values()

    # --- live ----------------------------------------------------------------------------------

    def on_message(self, user: _User, message: LiveMessage) -> None:
        """A message that the server has republished."""
        feed = user.feeds.get(message.subject.rsplit(".", 1)[-1])
        if feed is None:
            return
        stored = _parse(message)
        if stored is None:
            return
        _received.add()
        if stored.batch.ends:
            attributes = {"factorychain.run": stored.batch.run}
            with span(
                "bridge deliver", kind=SpanKind.CONSUMER, parent=stored.trace, attributes=attributes
            ):
                feed.on_live(stored)
        else:
            feed.on_live(stored)

    def _on_state(self, state: NatsState) -> None:
        if state is NatsState.CONNECTED:
            for user in self._users.values():
                self._resync(user)

    def _resync(self, user: _User) -> None:
        for feed in user.feeds.values():
            feed.resync()

    # --- polls ---------------------------------------------------------------------------------

    async def _poll_forever(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            await self.poll_due()

    async def poll_due(self) -> None:
        """One tick: ask the leader about every thread whose last event is not confirmed."""
        due = [feed for feed in self._feeds() if feed.tick()]
        for at in range(0, len(due), _POLLS_AT_ONCE):
            asked = due[at : at + _POLLS_AT_ONCE]
            if not all(await asyncio.gather(*(_answered(feed) for feed in asked))):
                return  # those left are still due at the next tick


async def _answered(feed: ThreadFeed) -> bool:
    try:
        await feed.poll()
    except NatsUnavailable:
        feed.resync()
        return False
    return True


def _parse(message: LiveMessage) -> Stored | None:
    headers = message.headers or {}
    try:
        stream_seq = int(headers["Nats-Sequence"])
        previous = int(headers.get("Nats-Last-Sequence", 0))
        batch = LogBatch.FromString(message.data)
    except (KeyError, ValueError, DecodeError):
        log.exception(
            "a live message cannot be read; the log is read instead", subject=message.subject
        )
        return None
    return Stored(stream_seq, previous, batch, len(message.data), headers.get(TRACEPARENT, ""))
