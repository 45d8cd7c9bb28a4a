"""A hub that keeps its threads in memory."""

from __future__ import annotations

import asyncio

from factorychain._core.ids import Principal
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain.errors import (
    FactoryChainError,
)
from factorychain.types.v1.event_pb2 import Event
from factorychain_bridge.items import (
    CaughtUp,
    Events,
    FeedItem,
    Reset,
    ResetReason,
    Sink,
    SubscribedAt,
)
from tests.integration.edge.people import EPOCH


def batch(owner: Principal, thread: str, run: str, first_seq: int, *texts: str) -> LogBatch:
    found = LogBatch(
        tenant=owner.tenant,
        user=owner.user,
        thread=thread,
        run=run,
        epoch=EPOCH,
        first_seq=first_seq,
    )
    for text in texts:
        found.events.append(thinking(text))
    return found


def thinking(text: str) -> Event:
    event = Event(trace="")
    event.at.GetCurrentTime()
    event.agent_thinking.text = text
    return event


class FakeSubscription:
    def __init__(self, hub: FakeHub, key: tuple[Principal, str]) -> None:
        self.hub = hub
        self.key = key
        self.at = SubscribedAt(0, 0, 0, "")
        self.sink: Sink | None = None
        self.closed = False
        self.after = 0
        self.kept: list[FeedItem] = []
        self.live = False

    def run_begins(self) -> None:
        """Here nothing of it can be missed."""

    def go(self) -> None:
        self.live = True
        kept, self.kept = self.kept, []
        for item in kept:
            self.give(item)

    def attach(self, sink: Sink, after: int, epoch: int) -> None:
        self.sink = sink
        self.after = after
        self.go()

    def cancel(self) -> None:
        self.close()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.hub.subscriptions[self.key].remove(self)

    def give(self, item: FeedItem) -> None:
        if not self.live:
            self.kept.append(item)
        elif self.sink is not None and not self.sink.deliver(item):
            self.close()


class FakeHub:
    """Keeps every thread in memory; delivers without checking whose it is."""

    def __init__(self) -> None:
        self.subscriptions: dict[tuple[Principal, str], list[FakeSubscription]] = {}
        self.log: dict[tuple[Principal, str], list[Events]] = {}
        self.connected: dict[Principal, int] = {}
        self.failure: FactoryChainError | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def connect(self, principal: Principal) -> FakeConnection:
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        self.connected[principal] = self.connected.get(principal, 0) + 1
        return FakeConnection(self, principal)

    def prepare(self, principal: Principal, thread: str) -> FakeSubscription:
        assert self.connected.get(principal)
        found = FakeSubscription(self, (principal, thread))
        self.subscriptions.setdefault((principal, thread), []).append(found)
        return found

    async def subscribe(
        self, principal: Principal, thread: str, after: int, epoch: int, sink: Sink
    ) -> FakeSubscription:
        found = self.prepare(principal, thread)
        await self.gate.wait()
        if self.failure is not None:
            found.close()
            raise self.failure
        found.sink = sink
        stored = self.log.get((principal, thread), [])
        last = stored[-1].last_seq if stored else 0
        found.at = SubscribedAt(1 if stored else 0, last, EPOCH if stored else 0, "")
        items: list[FeedItem] = []
        if stored and epoch not in (0, EPOCH):
            items.append(Reset(thread, EPOCH, ResetReason.EPOCH_CHANGED))
            after = 0
        items += [
            Events(each.batch, max(0, after + 1 - each.first_seq))
            for each in stored
            if each.last_seq > after
        ]
        found.kept[:0] = [*items, CaughtUp(thread, last)]
        return found

    def say(self, owner: Principal, thread: str, run: str, *texts: str) -> None:
        """Append events to a thread, and deliver them."""
        stored = self.log.setdefault((owner, thread), [])
        first_seq = stored[-1].last_seq + 1 if stored else 1
        item = Events(batch(owner, thread, run, first_seq, *texts), 0)
        stored.append(item)
        self.deliver(owner, thread, item)

    def deliver(self, to: Principal, thread: str, item: FeedItem) -> None:
        for each in tuple(self.subscriptions.get((to, thread), ())):
            each.give(item)

    def open_subscriptions(self) -> int:
        return sum(len(each) for each in self.subscriptions.values())


class FakeConnection:
    def __init__(self, hub: FakeHub, principal: Principal) -> None:
        self.hub = hub
        self.principal = principal

    def close(self) -> None:
        self.hub.connected[self.principal] -= 1
