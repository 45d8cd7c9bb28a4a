"""Live delivery on this replica: the users who are connected, and the threads that they watch.

One core subscription a connected user (`live.*.<user key>.*`), made when the first socket of a user is
authenticated, so that neither a start nor a subscription waits for one.

    user = await hub.connect(principal)              # at the socket's auth; user.close() at its end
    subscription = await hub.subscribe(principal, thread, after, epoch, sink)
    send(reply(subscription.at)); subscription.go()  # nothing is delivered before go()
    pending = hub.prepare(principal, thread)         # before StartRun: keeps what arrives
    send(reply(...)); pending.attach(sink, after, epoch)     # or pending.cancel()
    subscription.close()

Invariant: a user, a feed and a NATS subscription exist here only as long as somebody holds them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from factorychain._core.component import TaskSet
from factorychain._core.crash_points import crash_point
from factorychain._core.ids import Principal
from factorychain._core.logging import get_logger
from factorychain._core.nats_connection import NatsConnection, NatsState
from factorychain._core.stored import NatsUnavailable
from factorychain._core.telemetry import counter
from factorychain_bridge.feed import Deliveries, History, ThreadFeed
from factorychain_bridge.items import (
    CaughtUp,
    Events,
    FeedItem,
    Reset,
    ResetReason,
    Sink,
    SubscribedAt,
)
from factorychain_bridge.live import LiveUser
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

_POLLS_AT_ONCE = 16

mismatches = counter(
    "factorychain.bridge.principal_mismatch", "Events that were about to reach another principal"
)
lost_live = counter(
    "factorychain.bridge.live_lost", "Lost live messages that a poll has discovered"
)


@dataclass(frozen=True, slots=True)
class HubStatistics:
    """What a hub holds now."""

    users: int
    feeds: int
    subscriptions: int


class Connected:
    """A user's live traffic on this replica, held until `close`."""

    def __init__(self, user: LiveUser) -> None:
        self._user: LiveUser | None = user

    def close(self) -> None:
        """Let go; may be called twice."""
        user, self._user = self._user, None
        if user is not None:
            user.release()


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
        self._users: dict[str, LiveUser] = {}
        self._tasks = TaskSet(self.name)
        self._polling: asyncio.Task[None] | None = None
        self._shared = Deliveries(
            history, self._tasks, buffer_max_bytes, on_breach=mismatches.add, on_lost=lost_live.add
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
            await user.close()

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
            user = LiveUser(principal, self._connection, self._shared, self._drop)
            self._users[principal.ukey] = user
        await user.hold()
        return Connected(user)

    async def subscribe(
        self, principal: Principal, thread: str, after: int, epoch: int, sink: Sink
    ) -> Subscription:
        """A subscription of `sink`, which has everything up to `after` of `epoch` (0: not known).

        Nothing is delivered before its `go()`. The user must be connected.

        Raises:
            NatsUnavailable: The thread could not be read.
        """
        crash_point("bridge.thread.joining")
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
        return user.prepare(thread)

    # --- users ---------------------------------------------------------------------------------

    def _drop(self, user: LiveUser) -> None:
        if self._users.get(user.principal.ukey) is user:
            del self._users[user.principal.ukey]
            _ = self._tasks.spawn(user.close(), "unsubscribe")

    def _feeds(self) -> Iterator[ThreadFeed]:
        for user in self._users.values():
            yield from user.feeds.values()

    def _on_state(self, state: NatsState) -> None:
        if state is NatsState.CONNECTED:
            for user in self._users.values():
                user.resync()

    # --- polls ---------------------------------------------------------------------------------

    async def _poll_forever(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            self._shared.recent.forget()
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
