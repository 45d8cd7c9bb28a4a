"""One thread on this replica: whoever is subscribed, what arrives, and what has to be read for them.

A feed exists while somebody is subscribed to its thread or is about to be. It keeps no events: live
batches pass through, history is read in pages that joins of the same thread share.

Invariant: before each write the batch's principal and thread are compared with those of the sink;
what does not match is never written, closes the sink and is counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Protocol

from factorychain._core.component import TaskSet
from factorychain._core.ids import Principal
from factorychain._core.logging import get_logger
from factorychain._core.stored import NatsUnavailable
from factorychain_bridge.items import Events, FeedItem, Sink, StopReason, Stored
from factorychain_bridge.join import Join, LogEnd, Read
from factorychain_bridge.positions import RecentPositions
from factorychain_bridge.subscription import Subscription

log = get_logger(__name__)

_PAGES_KEPT = 4
_SLOWEST_POLL_TICKS = 4
_SETTLED_POLL_TICKS = 30
_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Page:
    """Consecutive messages of a thread's log; everything up to `upto` has been read."""

    messages: list[Stored]
    upto: int


class History(Protocol):
    """What the log holds, as far as a feed needs it."""

    async def end(self, principal: Principal, thread: str) -> LogEnd | None:
        """How the thread stands, read from the leader; None: there is nothing in it.

        Raises:
            NatsUnavailable: It could not be read now.
        """

    async def last(self, principal: Principal, thread: str) -> LogEnd | None:
        """The same for who needs no `first_seq` (it is 0): one read less.

        Raises:
            NatsUnavailable: It could not be read now.
        """

    async def page(self, principal: Principal, thread: str, read: Read) -> Page:
        """The first messages of `read`, at least one unless there is none, at most a page full.

        Raises:
            NatsUnavailable: It could not be read now.
        """


@dataclass(slots=True)
class Deliveries:
    """What the feeds of one hub have in common."""

    history: History
    tasks: TaskSet
    buffer_max_bytes: int
    recent: RecentPositions = field(default_factory=RecentPositions)
    on_breach: Callable[[], None] = lambda: None
    on_lost: Callable[[], None] = lambda: None


class ThreadFeed:
    """All subscriptions to one thread on this replica."""

    def __init__(
        self, principal: Principal, thread: str, shared: Deliveries, on_empty: Callable[[], None]
    ) -> None:
        self.principal = principal
        self.thread = thread
        self._shared = shared
        self._on_empty = on_empty
        self._subscriptions: list[Subscription] = []
        self._pages: dict[int, asyncio.Task[Page | NatsUnavailable]] = {}
        self._replays = 0
        self._positions = shared.recent.take(principal.ukey, thread)
        self._stream_seq = 0
        self._active = False
        self._confirmed = False
        self._quiet_ticks = 0
        self._poll_after_ticks = 1

    @property
    def subscriptions(self) -> int:
        return len(self._subscriptions)

    # --- subscribing ---------------------------------------------------------------------------

    def add(self) -> Subscription:
        """A subscription that keeps what arrives from now on until it is told from where."""
        found = Subscription(self, Join(self.thread, self._shared.buffer_max_bytes))
        self._subscriptions.append(found)
        return found

    def remove(self, subscription: Subscription) -> None:
        self._subscriptions.remove(subscription)
        if not self._subscriptions:
            self._shared.recent.keep(self.principal.ukey, self.thread, self._positions)
            self._on_empty()

    async def end(self) -> LogEnd | None:
        """How the thread stands; remembers whether it has an active run."""
        end = await self._shared.history.end(self.principal, self.thread)
        self._learn(end)
        return end

    def run_begins(self) -> None:
        """The engine has admitted a run here: poll until it has ended."""
        self._active = True
        self._quiet_ticks = 0
        self._poll_after_ticks = 1

    # --- live ----------------------------------------------------------------------------------

    def on_live(self, stored: Stored) -> None:
        """A message that the server has republished."""
        if stored.stream_seq > self._stream_seq:
            self._stream_seq = stored.stream_seq
            self._active = not stored.batch.ends
            self._positions.add(stored.batch.epoch, stored.last_seq, stored.stream_seq)
            self._confirmed = False
            self._quiet_ticks = 0
            self._poll_after_ticks = 1
        for each in tuple(self._subscriptions):
            each.on_live(stored)

    # --- polling -------------------------------------------------------------------------------

    def tick(self) -> bool:
        """One poll interval is over: whether the leader must be asked now.

        Live messages are delivered at most once and a lost last one has no successor that shows the
        gap, so a thread is asked for while it has an active run, and after its last message until
        that was confirmed; less and less often while it is quiet. Rarely also after that: of a run
        that began elsewhere everything may have been lost.
        """
        self._quiet_ticks += 1
        settled = self._confirmed and not self._active
        return self._quiet_ticks >= (_SETTLED_POLL_TICKS if settled else self._poll_after_ticks)

    async def poll(self) -> None:
        """Ask the leader, and have those who miss something read it."""
        self._quiet_ticks = 0
        self._poll_after_ticks = min(2 * self._poll_after_ticks, _SLOWEST_POLL_TICKS)
        seen = self._stream_seq
        end = await self._shared.history.last(self.principal, self.thread)
        if end is not None and end.stream_seq > self._stream_seq and seen:
            self._shared.on_lost()
        self._learn(end)
        if end is not None:
            for each in tuple(self._subscriptions):
                each.on_end(end)

    def resync(self) -> None:
        """Live messages may have been lost: ask at the next tick whatever was confirmed before."""
        self._confirmed = False
        self._quiet_ticks = self._poll_after_ticks

    def _learn(self, end: LogEnd | None) -> None:
        if end is None:
            self._confirmed = True
            return
        if end.stream_seq < self._stream_seq:
            return  # a live message has overtaken the answer: not confirmed
        self._active = bool(end.active_run)
        self._stream_seq = end.stream_seq
        self._confirmed = True

    # --- history -------------------------------------------------------------------------------

    async def history(self, read: Read, position: tuple[int, int]) -> AsyncGenerator[Stored, None]:
        """The messages of a read, page by page; `position` = (epoch, seq) that the reader has."""
        after = max(read.after, self._positions.before(*position))
        self._replays += 1
        try:
            while after < read.upto:
                page = await self._page(Read(after, read.upto))
                for stored in page.messages:
                    yield stored
                after = page.upto
        finally:
            self._replays -= 1
            if not self._replays:
                self._pages.clear()

    async def _page(self, read: Read) -> Page:
        while True:
            task = self._pages.get(read.after)
            if task is None:
                task = self._shared.tasks.spawn(self._read_page(read), f"page of {self.thread}")
                self._pages[read.after] = task
                while len(self._pages) > _PAGES_KEPT:
                    del self._pages[next(iter(self._pages))]
            # Shielded: one who leaves must not take the page from the others.
            found = await asyncio.shield(task)
            if isinstance(found, Page):
                return found
            if self._pages.get(read.after) is task:
                del self._pages[read.after]
            await asyncio.sleep(_RETRY_S)  # NATS is away: the socket stays, and the replay goes on

    async def _read_page(self, read: Read) -> Page | NatsUnavailable:
        try:
            return await self._shared.history.page(self.principal, self.thread, read)
        except NatsUnavailable as error:
            return error

    # --- writing -------------------------------------------------------------------------------

    def write(self, sink: Sink, item: FeedItem) -> bool:
        """Hand one item to a sink, if it is the sink's own; False: the subscription is over."""
        if isinstance(item, Events) and not self._is_for(item, sink.principal):
            self._breach(sink, item)
            return False
        return sink.deliver(item)

    def _is_for(self, item: Events, owner: Principal) -> bool:
        batch = item.batch
        return (
            batch.tenant == owner.tenant
            and batch.user == owner.user
            and batch.thread == self.thread
        )

    def _breach(self, sink: Sink, item: Events) -> None:
        # Whose it is stays out of the log line: the run id is enough to look it up.
        log.critical(
            "an event of another principal was about to be delivered; the sink is closed",
            run=item.run,
            thread=self.thread,
            tenant=sink.principal.tenant,
            business_impact="isolation between users",
        )
        self._shared.on_breach()
        sink.stop(StopReason.PRINCIPAL_MISMATCH)

    def spawn(self, work: Coroutine[object, object, None], what: str) -> asyncio.Task[None]:
        """Background work of a subscription."""
        return self._shared.tasks.spawn(work, f"{what} of {self.thread}")
