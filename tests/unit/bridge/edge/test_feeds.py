"""The threads that one socket follows."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from factorychain._core.ids import Principal
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain.errors import ChainDegraded, FactoryChainError
from factorychain_bridge.edge.feeds import Feeds
from factorychain_bridge.edge.outbox import Outbox
from factorychain_bridge.items import CaughtUp, Events, FeedItem, Sink, StopReason, SubscribedAt

A, B = Principal("default", "ana"), Principal("default", "ben")


class FakeSubscription:
    def __init__(self) -> None:
        self.at = SubscribedAt(1, 4, 9, "r")
        self.sink: Sink | None = None
        self.position: tuple[int, int] | None = None
        self.gone = False
        self.closed = False
        self.begun = 0

    def run_begins(self) -> None:
        self.begun += 1

    def go(self) -> None:
        self.gone = True

    def attach(self, sink: Sink, after: int, epoch: int) -> None:
        self.sink, self.position = sink, (after, epoch)

    def close(self) -> None:
        self.closed = True


class FakeHub:
    def __init__(self) -> None:
        self.made: list[FakeSubscription] = []
        self.failure: FactoryChainError | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def subscribe(
        self, principal: Principal, thread: str, after: int, epoch: int, sink: Sink
    ) -> FakeSubscription:
        found = FakeSubscription()
        self.made.append(found)
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        found.attach(sink, after, epoch)
        return found

    def prepare(self, principal: Principal, thread: str) -> FakeSubscription:
        found = FakeSubscription()
        self.made.append(found)
        return found


class Fixture:
    def __init__(self, limit: int = 3, queue_bytes: int = 10_000) -> None:
        self.hub = FakeHub()
        self.outbox = Outbox(queue_bytes)
        self.stops: list[StopReason] = []
        self.feeds = Feeds(A, self.hub, self.outbox, limit, self.stops.append)

    def sent(self) -> list[dict[str, Any]]:
        found = []
        while (frame := self.outbox.next()) is not None:
            found.append(orjson.loads(frame))
            self.outbox.done(len(frame))
        return found

    def seqs(self) -> list[int]:
        return [event["seq"] for frame in self.sent() for event in frame.get("events", [])]

    def give(self, item: FeedItem, at: int = -1) -> bool:
        sink = self.hub.made[at].sink
        assert sink is not None
        return sink.deliver(item)

    async def follow(self, thread: str = "t") -> None:
        _, go = await self.feeds.locate(self.feeds.open(thread), 0, 0)
        go()


def events(seq: int, run: str = "r", owner: Principal = A, text: str = "x") -> Events:
    found = LogBatch(
        tenant=owner.tenant, user=owner.user, thread="t", run=run, epoch=9, first_seq=seq
    )
    found.events.add().agent_thinking.text = text
    return Events(found, 0)


async def test_a_subscription_tells_how_the_thread_stands_and_delivers_after_go() -> None:
    fixture = Fixture()
    result, go = await fixture.feeds.locate(fixture.feeds.open("t"), 2, 9)
    assert result == {"first": 1, "last": 4, "epoch": 9, "active_run": "r"}
    (made,) = fixture.hub.made
    assert (made.position, made.gone) == ((2, 9), False)
    go()
    assert made.gone
    assert fixture.give(events(3))
    assert fixture.give(CaughtUp("t", 3))
    assert [frame["op"] for frame in fixture.sent()] == ["events", "caught_up"]


async def test_a_failed_subscription_leaves_nothing() -> None:
    fixture = Fixture()
    fixture.hub.failure = ChainDegraded("nats")
    with pytest.raises(ChainDegraded):
        await fixture.follow()
    assert len(fixture.feeds) == 0


async def test_the_last_of_two_overlapping_subscriptions_wins() -> None:
    fixture = Fixture()
    fixture.hub.gate.clear()
    first = asyncio.create_task(fixture.feeds.locate(fixture.feeds.open("t"), 0, 0))
    second = asyncio.create_task(fixture.feeds.locate(fixture.feeds.open("t"), 0, 0))
    await asyncio.sleep(0)
    fixture.hub.gate.set()
    for each in (first, second):
        _, go = await each
        go()
    assert [(each.gone, each.closed) for each in fixture.hub.made] == [(False, True), (True, False)]


async def test_a_start_listens_before_there_is_a_run_and_delivers_from_its_position() -> None:
    fixture = Fixture()
    starting = fixture.feeds.start("t", "run")
    (made,) = fixture.hub.made
    assert made.sink is None
    starting.begun(16, 9)
    assert made.position == (16, 9)
    assert fixture.give(events(17, "run"))
    assert fixture.seqs() == [17]


async def test_a_refused_start_lets_go() -> None:
    fixture = Fixture()
    fixture.feeds.start("t", "run").refused()
    assert fixture.hub.made[0].closed
    assert len(fixture.feeds) == 0


async def test_of_two_starts_in_a_new_thread_the_one_that_begins_is_followed() -> None:
    for refused_first in (True, False):
        fixture = Fixture()
        one, two = fixture.feeds.start("t", "one"), fixture.feeds.start("t", "two")
        if refused_first:
            one.refused()
            two.begun(0, 9)
        else:
            two.begun(0, 9)
            one.refused()
        (made,) = fixture.hub.made
        assert (made.position, made.closed) == ((0, 9), False)
        assert fixture.give(events(1, "two"))
        assert fixture.seqs() == [1]


async def test_in_a_followed_thread_a_run_waits_for_the_reply_to_its_start() -> None:
    fixture = Fixture()
    await fixture.follow()
    starting = fixture.feeds.start("t", "new")
    fixture.give(events(1, "old"))
    fixture.give(events(2, "new"))
    fixture.give(events(3, "old"))
    assert fixture.seqs() == [1]
    starting.begun(1, 9)
    assert fixture.seqs() == [2, 3]
    assert len(fixture.hub.made) == 1


async def test_what_waits_for_one_reply_is_not_let_out_by_another() -> None:
    fixture = Fixture()
    await fixture.follow()
    one, two = fixture.feeds.start("t", "one"), fixture.feeds.start("t", "two")
    fixture.give(events(1, "one"))
    fixture.give(events(2, "two"))
    two.begun(1, 9)
    assert fixture.seqs() == []
    one.begun(0, 9)
    assert fixture.seqs() == [1, 2]


async def test_what_waits_counts_in_the_queue_and_overflows_it() -> None:
    fixture = Fixture(queue_bytes=600)
    await fixture.follow()
    fixture.feeds.start("t", "new")
    assert fixture.give(events(1, "new", text="x" * 200))
    assert fixture.outbox.size_bytes > 200
    assert not fixture.give(events(2, "new", text="x" * 300))
    assert fixture.stops == [StopReason.SLOW_CONSUMER]
    assert not fixture.give(events(3, "new"))


async def test_an_event_of_somebody_else_is_never_queued() -> None:
    fixture = Fixture()
    await fixture.follow()
    assert not fixture.give(events(1, owner=B))
    assert fixture.stops == [StopReason.PRINCIPAL_MISMATCH]
    assert fixture.sent() == []
    assert not fixture.give(events(2))


async def test_an_unsubscribe_during_a_start_holds() -> None:
    fixture = Fixture()
    starting = fixture.feeds.start("t", "run")
    fixture.feeds.unsubscribe("t")
    starting.begun(0, 9)
    assert fixture.hub.made[0].closed
    assert fixture.hub.made[0].position is None


async def test_a_subscription_made_during_a_start_stays_and_the_reply_still_comes_first() -> None:
    fixture = Fixture()
    starting = fixture.feeds.start("t", "run")
    await fixture.follow()
    fixture.give(events(1, "run"))
    assert fixture.seqs() == []
    starting.begun(0, 9)
    assert fixture.seqs() == [1]
    assert [each.closed for each in fixture.hub.made] == [True, False]


async def test_threads_are_bounded_and_a_new_subscription_of_one_needs_no_place() -> None:
    fixture = Fixture(limit=2)
    await fixture.follow("t1")
    fixture.feeds.start("t2", "run")
    for refused in (lambda: fixture.feeds.open("t3"), lambda: fixture.feeds.start("t3", "r")):
        with pytest.raises(FactoryChainError) as error:
            refused()
        assert error.value.reason == "SUBSCRIPTION_LIMIT"
    await fixture.follow("t1")
    fixture.feeds.unsubscribe("t1")
    await fixture.follow("t3")


async def test_closing_ends_everything_also_what_is_under_way() -> None:
    fixture = Fixture()
    await fixture.follow("t1")
    fixture.hub.gate.clear()
    under_way = asyncio.create_task(fixture.feeds.locate(fixture.feeds.open("t2"), 0, 0))
    starting = fixture.feeds.start("t3", "run")
    await asyncio.sleep(0)
    fixture.feeds.close()
    fixture.hub.gate.set()
    _, go = await under_way
    go()
    starting.begun(0, 9)
    assert all(each.closed for each in fixture.hub.made)
    with pytest.raises(FactoryChainError):
        fixture.feeds.open("t4")


async def test_a_run_that_is_started_in_a_followed_thread_is_looked_for() -> None:
    fixture = Fixture()
    await fixture.follow()
    refused = fixture.feeds.start("t", "r1")
    refused.refused()
    assert fixture.hub.made[-1].begun == 0
    fixture.feeds.start("t", "r2").begun(4, 9)
    assert fixture.hub.made[-1].begun == 1
