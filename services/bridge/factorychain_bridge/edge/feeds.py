"""The threads that one socket follows.

Invariants: a thread has at most one subscription on a socket, so nothing is sent twice on it; the
reply to a start is queued before the first event of its run, also where the socket follows the
thread already; and an event goes into the outbox only if it is the socket's own user's.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Container, Mapping
from functools import partial
from typing import Protocol

from factorychain._core.ids import Principal
from factorychain._core.metrics import record_creation
from factorychain.errors import ErrorCode, FactoryChainError
from factorychain_bridge.edge import answers
from factorychain_bridge.edge.awaiting import Awaited, Starting
from factorychain_bridge.edge.creations import Creations
from factorychain_bridge.edge.outbox import Outbox
from factorychain_bridge.items import CaughtUp, Events, FeedItem, Sink, StopReason, SubscribedAt


class Subscription(Protocol):
    """What the hub gives: a place in a thread."""

    @property
    def at(self) -> SubscribedAt: ...

    def go(self) -> None:
        """Begin to deliver; the reply is out."""

    def attach(self, sink: Sink, after: int, epoch: int) -> None:
        """Begin to deliver what comes after a position that the engine has just named."""

    def run_begins(self) -> None: ...

    def close(self) -> None: ...


class Hub(Protocol):
    """The threads of this replica, as far as a socket needs them."""

    async def subscribe(
        self, principal: Principal, thread: str, after: int, epoch: int, sink: Sink
    ) -> Subscription: ...

    def prepare(self, principal: Principal, thread: str) -> Subscription: ...


class Feed:
    """One thread on one socket: the sink that the hub delivers to."""

    def __init__(
        self,
        thread: str,
        principal: Principal,
        outbox: Outbox,
        awaited: Container[str],
        creations: Creations,
        on_stop: Callable[[StopReason], None],
    ) -> None:
        """`awaited`: runs whose start has no reply yet. From the first event of one of them on
        everything is held back, until `flush`.
        """
        self.thread = thread
        self.principal = principal
        self.subscription: Subscription | None = None
        self.following = False
        """Whether the hub delivers, or will without anything more from here."""
        self.starts = 0
        """Starts that wait for their reply and need this feed if it is not following."""
        self._outbox = outbox
        self._on_stop = on_stop
        self._awaited = awaited
        self._creations = creations
        self._held: deque[tuple[str, bytes]] = deque()
        self._closed = False

    # --- as a sink -----------------------------------------------------------------------------

    def deliver(self, item: FeedItem) -> bool:
        if self._closed:
            return False
        run = ""
        if isinstance(item, Events):
            if (item.batch.tenant, item.batch.user) != (self.principal.tenant, self.principal.user):
                self.stop(StopReason.PRINCIPAL_MISMATCH)
                return False
            run = item.run
            self._creations.shown(run)
        frame = _frame(item)
        if self._held or run in self._awaited:
            return self._hold(run, frame)
        return self._outbox.put(frame) or self._overflow()

    async def room(self) -> None:
        await self._outbox.room()

    def stop(self, why: StopReason) -> None:
        # The hub has logged and counted it; the socket only has to go.
        self._closed = True
        self._on_stop(why)

    def flush(self) -> None:
        """Queue what was held back for a reply that is out now, or will not come."""
        while self._held and self._held[0][0] not in self._awaited:
            self._outbox.put_reserved(self._held.popleft()[1])

    def close(self) -> None:
        """Deliver nothing any more; may be called twice."""
        self._closed = True
        while self._held:
            self._outbox.done(len(self._held.popleft()[1]))
        if self.subscription is not None:
            self.subscription.close()
            self.subscription = None

    def _hold(self, run: str, frame: bytes) -> bool:
        if not self._outbox.reserve(len(frame)):
            return self._overflow()
        self._held.append((run, frame))
        return True

    def _overflow(self) -> bool:
        self.stop(StopReason.SLOW_CONSUMER)
        return False


def _frame(item: FeedItem) -> bytes:
    if isinstance(item, Events):
        return item.json
    if isinstance(item, CaughtUp):
        return answers.caught_up(item.thread, item.seq)
    return answers.reset(item.thread, item.epoch, item.reason)


class Feeds:
    """All feeds of one socket."""

    def __init__(
        self,
        principal: Principal,
        hub: Hub,
        outbox: Outbox,
        limit: int,
        on_stop: Callable[[StopReason], None],
    ) -> None:
        """`on_stop` is told when the socket must close, and why."""
        self._principal = principal
        self._hub = hub
        self._outbox = outbox
        self._limit = limit
        self._on_stop = on_stop
        self._feeds: dict[str, Feed] = {}
        self._awaited: Counter[str] = Counter()
        self._creations = Creations(time.perf_counter, partial(record_creation, "total"))
        self._closed = False

    def __len__(self) -> int:
        return len(self._feeds)

    def following(self, thread: str) -> bool:
        """Whether the thread's events come here without anything more."""
        feed = self._feeds.get(thread)
        return feed is not None and feed.following

    # --- subscribe and unsubscribe -------------------------------------------------------------

    def open(self, thread: str) -> Feed:
        """A place for a new subscription. The one before it, if any, ends here.

        Raises:
            FactoryChainError: The socket follows as many threads as it may.
        """
        self._check_room(thread)
        feed = self._replace(thread)
        feed.following = True
        return feed

    async def locate(
        self, feed: Feed, after: int, epoch: int
    ) -> tuple[Mapping[str, object], Callable[[], None]]:
        """The result for the reply, and what begins delivery once the reply is out.

        Raises:
            FactoryChainError: The thread's log cannot be read now; the feed is gone.
        """
        try:
            subscription = await self._hub.subscribe(
                self._principal, feed.thread, after, epoch, feed
            )
        except BaseException:
            self._drop(feed)
            raise
        at = subscription.at
        found = {"first": at.first, "last": at.last, "epoch": at.epoch, "active_run": at.active_run}
        if self._feeds.get(feed.thread) is not feed:
            # Unsubscribed, replaced or gone while the log was asked.
            subscription.close()
            return found, lambda: None
        feed.subscription = subscription
        return found, subscription.go

    def found(self, run: str) -> None:
        """The run that was to be started was there already."""
        self._creations.forget(run)

    def unsubscribe(self, thread: str) -> None:
        feed = self._feeds.pop(thread, None)
        if feed is not None:
            feed.close()

    # --- start ---------------------------------------------------------------------------------

    def start(self, thread: str, run: str) -> Starting:
        """Listen before the run exists, so that nothing of it is missed."""
        feed = self._feeds.get(thread)
        if feed is None:
            self._check_room(thread)
            feed = self._replace(thread)
            feed.subscription = self._hub.prepare(self._principal, thread)
        feed.starts += 1
        self._awaited[run] += 1
        self._creations.begin(run)
        return Starting(partial(self._end_start, feed, run))

    def expect(self, run: str) -> Awaited:
        """Hold back what this run says, which may begin before the reply to what starts it is out."""
        self._awaited[run] += 1
        return Awaited(partial(self._end_awaiting, run))

    def _end_awaiting(self, run: str) -> None:
        self._no_longer_awaited(run)
        for feed in self._feeds.values():
            feed.flush()

    def _no_longer_awaited(self, run: str) -> None:
        self._awaited[run] -= 1
        if not self._awaited[run]:
            del self._awaited[run]

    def _end_start(self, feed: Feed, run: str, position: tuple[int, int] | None) -> None:
        if position is None:
            self._creations.forget(run)
        self._no_longer_awaited(run)
        feed.starts -= 1
        current = self._feeds.get(feed.thread)
        if current is None:
            return  # unsubscribed meanwhile, or the socket is gone
        current.flush()
        if position is not None and current.following and current.subscription is not None:
            current.subscription.run_begins()
        if current is not feed or feed.following:
            return
        if position is not None and feed.subscription is not None:
            feed.following = True
            feed.subscription.attach(feed, *position)
        elif not feed.starts:
            self._drop(feed)

    def close(self) -> None:
        """The socket is gone."""
        self._closed = True
        for feed in self._feeds.values():
            feed.close()
        self._feeds.clear()

    # --- steps ---------------------------------------------------------------------------------

    def _replace(self, thread: str) -> Feed:
        feed = Feed(
            thread, self._principal, self._outbox, self._awaited, self._creations, self._on_stop
        )
        previous = self._feeds.get(thread)
        if previous is not None:
            previous.close()
        self._feeds[thread] = feed
        return feed

    def _drop(self, feed: Feed) -> None:
        if self._feeds.get(feed.thread) is feed:
            del self._feeds[feed.thread]
        feed.close()

    def _check_room(self, thread: str) -> None:
        if self._closed:
            raise FactoryChainError(
                "the socket is closed", reason="SOCKET_CLOSED", code=ErrorCode.CANCELLED
            )
        if thread not in self._feeds and len(self._feeds) >= self._limit:
            raise FactoryChainError(
                f"this socket follows {self._limit} threads, which is the limit; unsubscribe from one",
                reason="SUBSCRIPTION_LIMIT",
                code=ErrorCode.RESOURCE_EXHAUSTED,
            )
