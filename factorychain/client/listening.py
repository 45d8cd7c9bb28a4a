"""Who listens to which thread, and up to where: no loss, no repeat, whatever the connection does.

Pure: frames in, items for listeners out; and, for a new connection, the positions to resume from.

Invariant: a listener is given the events of its thread after its position, each once, in order. Where
the server says that a position does not hold, it is given a `Reset` first. One that does not take its
items ends with SLOW_CONSUMER and can subscribe again from its last seq; nothing is dropped silently.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from factorychain.client.events import CaughtUp, Event, Item, Json, Reset, events_of, integer
from factorychain.errors import FactoryChainError, SlowConsumer

QUEUE_MAX_ITEMS = 10_000


class Listener:
    """One reader of a thread, or of one run in it."""

    def __init__(self, thread: str, *, run: str = "", seq: int = 0, epoch: int = 0) -> None:
        self.thread = thread
        self.run = run
        """Only this run's events, up to its ending; empty for all of the thread."""
        self.seq = seq
        self.epoch = epoch
        """0: not known yet."""
        self.active = False
        """Nothing is taken before the server has said from where it delivers."""
        self._items: deque[Item] = deque()
        self._ended: FactoryChainError | None = None
        self._done = False
        self._wake = asyncio.Event()

    @property
    def done(self) -> bool:
        """Nothing more will come."""
        return self._done

    # --- from the server -----------------------------------------------------------------------

    def take(self, event: Event) -> None:
        if not self.active or self._done:
            return
        if self.epoch not in (0, event.epoch):
            self.reset(Reset(event.thread, event.epoch, "EPOCH_CHANGED"))
        if event.seq <= self.seq:
            return  # on its way twice: another listener of the thread has gone back
        self.epoch, self.seq = event.epoch, event.seq
        if self.run in ("", event.run):
            self._put(event)
            if self.run and event.is_ending:
                self.end(None)

    def mark(self, mark: CaughtUp) -> None:
        if self.active and not self.run:
            self._put(mark)

    def reset(self, reset: Reset) -> None:
        """The position does not hold."""
        if reset.epoch != self.epoch or reset.reason == "POSITION_UNKNOWN":
            self.seq = 0
        self.epoch = reset.epoch
        if not self.run:
            self._put(reset)

    def end(self, error: FactoryChainError | None) -> None:
        """Nothing more will come, because of the error if there is one."""
        if not self._done:
            self._done, self._ended = True, error
            self._wake.set()

    def _put(self, item: Item) -> None:
        if len(self._items) >= QUEUE_MAX_ITEMS:
            self.end(SlowConsumer())
            return
        self._items.append(item)
        self._wake.set()

    # --- for the reader ------------------------------------------------------------------------

    async def next(self) -> Item:
        """The next item.

        Raises:
            StopAsyncIteration: There is no more.
            FactoryChainError: It ended with an error.
        """
        while not self._items:
            if self._done:
                if self._ended is not None:
                    raise self._ended
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._items.popleft()


class Listening:
    """All listeners of one client."""

    def __init__(self) -> None:
        self._threads: dict[str, list[Listener]] = {}
        self._followed: dict[str, int] = {}
        """Threads that the server delivers, the longest unused first, with the last seq it told."""

    def __iter__(self) -> Iterator[Listener]:
        for listeners in tuple(self._threads.values()):
            yield from tuple(listeners)

    def add(self, listener: Listener) -> None:
        self._threads.setdefault(listener.thread, []).append(listener)

    def remove(self, listener: Listener) -> None:
        """May be called twice."""
        listeners = self._threads.get(listener.thread, [])
        if listener in listeners:
            listeners.remove(listener)
        if not listeners:
            self._threads.pop(listener.thread, None)

    # --- what the server delivers --------------------------------------------------------------

    def followed(self, thread: str) -> bool:
        """Whether the server delivers the thread on this connection."""
        return thread in self._followed

    def waiting(self, thread: str) -> tuple[Listener, ...]:
        """Those whom a subscription made now, from `position`, will serve."""
        return tuple(self._threads.get(thread, ()))

    def delivers(self, thread: str, listeners: Iterable[Listener], last: int) -> None:
        """The server has said that it delivers the thread, from where these listeners need it."""
        self._followed.pop(thread, None)
        self._followed[thread] = last
        for listener in listeners:
            listener.active = True

    def idle(self, more_than: int) -> list[str]:
        """Threads to unsubscribe from: nobody listens, and the server delivers more than these."""
        excess = len(self._followed) - more_than
        if excess <= 0:
            return []
        found = [each for each in self._followed if each not in self._threads][:excess]
        for thread in found:
            del self._followed[thread]
        return found

    def disconnected(self) -> None:
        """Nothing is delivered any more until the server says so again."""
        self._followed.clear()
        for listener in self:
            listener.active = False

    def threads(self) -> list[str]:
        """Those that somebody listens to."""
        return list(self._threads)

    def position(self, thread: str) -> tuple[int, int]:
        """The seq and epoch that lose nobody anything: the lowest of the listeners."""
        listeners = self._threads.get(thread, ())
        if len({each.epoch for each in listeners}) > 1:
            return 0, 0
        lowest = min(listeners, key=lambda each: each.seq, default=None)
        return (lowest.seq, lowest.epoch) if lowest is not None else (0, 0)

    # --- frames --------------------------------------------------------------------------------

    def on_events(self, frame: Mapping[str, Json]) -> None:
        listeners = self._threads.get(str(frame.get("thread")))
        if not listeners:
            return
        for event in events_of(frame):
            for listener in tuple(listeners):
                listener.take(event)
                if listener.done:
                    self.remove(listener)

    def on_caught_up(self, frame: Mapping[str, Json]) -> None:
        mark = CaughtUp(str(frame.get("thread")), integer(frame, "seq"))
        for listener in self._threads.get(mark.thread, ()):
            listener.mark(mark)

    def on_reset(self, frame: Mapping[str, Json]) -> None:
        thread = str(frame.get("thread"))
        reset = Reset(thread, integer(frame, "epoch"), str(frame.get("reason", "")))
        last = self._followed.get(thread, 0)
        for listener in self._threads.get(thread, ()):
            # The position was the lowest of all listeners: one that is further on within the same
            # numbering has lost nothing and skips what it has.
            unharmed = listener.epoch == reset.epoch and 0 < listener.seq <= last
            if listener.active and not (unharmed and reset.reason == "POSITION_UNKNOWN"):
                listener.reset(reset)
