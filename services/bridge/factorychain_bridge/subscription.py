"""One sink on one thread: drives its join, reads history at the sink's pace, writes what comes out.

Invariant: nothing is delivered before `go` or `attach` (the reply comes first) and nothing after
`close`; a sink that refuses an item gets no further one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from typing import Protocol

from factorychain._core.logging import get_logger
from factorychain._core.stored import NatsUnavailable
from factorychain_bridge.items import FeedItem, Sink, StopReason, Stored, SubscribedAt
from factorychain_bridge.join import Join, LogEnd, Read, Stage

log = get_logger(__name__)

_FIRST_EVENT_S = 0.1


class Source(Protocol):
    """The thread that a subscription is on, as far as it needs it; see `ThreadFeed`."""

    async def end(self) -> LogEnd | None:
        """How the thread stands; may raise `NatsUnavailable`."""

    async def poll(self) -> None:
        """Ask how it stands, and tell every subscription; may raise `NatsUnavailable`."""

    def run_begins(self) -> None:
        """The engine has admitted a run here."""

    def history(self, read: Read, position: tuple[int, int]) -> AsyncGenerator[Stored, None]:
        """The messages of a read; `position` = (epoch, seq) that the reader has."""

    def write(self, sink: Sink, item: FeedItem) -> bool:
        """Hand one item to a sink; False: the subscription is over."""

    def spawn(self, work: Coroutine[object, object, None], what: str) -> asyncio.Task[None]:
        """Background work, whose failure is heard."""

    def remove(self, subscription: Subscription) -> None:
        """It wants nothing any more."""


class Subscription:
    """Made by a feed. From then on live batches are kept for it, until it is told where to begin."""

    __slots__ = ("_delivering", "_feed", "_join", "_pending", "_replay", "_sink", "at")

    def __init__(self, feed: Source, join: Join) -> None:
        self._feed: Source | None = feed
        self._join = join
        self._sink: Sink | None = None
        self._delivering = False
        self._pending: list[FeedItem] = []
        self._replay: asyncio.Task[None] | None = None
        self.at = SubscribedAt(0, 0, 0, "")
        """How the thread stood when `locate` asked."""

    @property
    def closed(self) -> bool:
        return self._feed is None

    @property
    def stage(self) -> Stage:
        return self._join.stage

    # --- beginning -----------------------------------------------------------------------------

    async def locate(self, after: int, epoch: int, sink: Sink) -> None:
        """Ask where the thread stands, and from where `sink` goes on, which has all up to `after`.

        Raises:
            NatsUnavailable: The leader could not be asked.
        """
        if self._feed is None:
            return
        end = await self._feed.end()
        if end is not None:
            self.at = SubscribedAt(end.first_seq, end.seq, end.epoch, end.active_run)
        self._sink = sink
        self._pending = self._join.start(after, epoch, end)

    def go(self) -> None:
        """Begin to deliver: the caller's reply is out."""
        items, self._pending = self._pending, []
        self._delivering = True
        self._advance(items)

    def attach(self, sink: Sink, after: int, epoch: int) -> None:
        """Begin to deliver after `after`, where the engine says that the thread stood before a run."""
        if self._feed is None:
            return
        self._sink = sink
        self._delivering = True
        self._feed.run_begins()
        self._advance(self._join.start_here(after, epoch))
        if not self.closed and self._join.seq == after and self._replay is None:
            # Usually the run's first event is on its way. A repeated start may name a run whose events
            # are in the log already, so that nothing comes: don't wait for the next poll.
            self._replay = self._feed.spawn(self._ask_soon(after), "first poll")

    def run_begins(self) -> None:
        """A run was admitted in the thread, whose events come here: see that they do."""
        if self._feed is not None:
            self._feed.run_begins()

    # --- ending --------------------------------------------------------------------------------

    def cancel(self) -> None:
        """`close`, for a subscription that never got its sink."""
        self.close()

    def close(self) -> None:
        """Deliver nothing any more; may be called twice."""
        feed, self._feed = self._feed, None
        if feed is None:
            return
        if self._replay is not None:
            self._replay.cancel()
        self._pending = []
        feed.remove(self)

    # --- what the feed tells -------------------------------------------------------------------

    def on_live(self, stored: Stored) -> None:
        """A live batch."""
        items = self._join.on_live(stored)
        if not self._delivering:
            self._pending += items
        elif items or self._join.read is not None:
            self._advance(items)

    def on_end(self, end: LogEnd) -> None:
        """A poll's answer."""
        self._join.on_end(end)
        if self._delivering:
            self._advance([])

    # --- steps ---------------------------------------------------------------------------------

    def _advance(self, items: list[FeedItem]) -> None:
        if not self._write(items) or self._feed is None:
            return
        if self._join.read is not None and (self._replay is None or self._replay.done()):
            self._replay = self._feed.spawn(self._read_until_live(), "replay")

    def _write(self, items: list[FeedItem]) -> bool:
        for item in items:
            if self._feed is None or self._sink is None:
                return False
            if not self._feed.write(self._sink, item):
                self.close()
                return False
        return self._feed is not None

    async def _ask_soon(self, after: int) -> None:
        await asyncio.sleep(_FIRST_EVENT_S)
        if self._feed is not None and self._join.seq == after:
            with suppress(NatsUnavailable):  # the next poll asks again
                await self._feed.poll()
        await self._read_until_live()

    async def _read_until_live(self) -> None:
        try:
            await self._read_all()
        except Exception:
            # Without its history the sink would stand still for ever: its client starts over.
            log.exception("a replay failed; its sink is closed")
            sink = self._sink
            self.close()
            if sink is not None:
                sink.stop(StopReason.REPLAY_FAILED)

    async def _read_all(self) -> None:
        while (read := self._join.read) is not None:
            feed, sink = self._feed, self._sink
            if feed is None or sink is None:
                return
            position = (self._join.epoch, self._join.seq)
            async with aclosing(feed.history(read, position)) as messages:
                async for stored in messages:
                    await sink.room()
                    if not self._write(self._join.on_history(stored)):
                        return
            if not self._write(self._join.on_read_done()):
                return
