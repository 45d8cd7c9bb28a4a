"""A feed: whom it writes to, when it asks the leader, and how reads are shared. No NATS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from factorychain._core.component import TaskSet
from factorychain._core.ids import Principal
from factorychain._core.stored import NatsUnavailable
from factorychain_bridge.feed import Deliveries, Page, ThreadFeed
from factorychain_bridge.items import CaughtUp, Events, FeedItem, StopReason, Stored
from factorychain_bridge.join import LogEnd, Read
from tests.unit.bridge.samples import ANA, BEN, EPOCH, RUN, THREAD, batch, stored


class MemoryHistory:
    """A thread's log in memory, which counts what is asked of it."""

    def __init__(self) -> None:
        self.log: list[Stored] = []
        self.asked = 0
        self.pages: list[Read] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    def write(self, *texts: str, ends: bool = False) -> Stored:
        first_seq = self.log[-1].last_seq + 1 if self.log else 1
        stream_seq = 10 + 2 * len(self.log)
        previous = self.log[-1].stream_seq if self.log else 0
        self.log.append(stored(stream_seq, batch(first_seq, *texts, ends=ends), previous))
        return self.log[-1]

    async def end(self, principal: Principal, thread: str) -> LogEnd | None:
        return await self.last(principal, thread)

    async def last(self, principal: Principal, thread: str) -> LogEnd | None:
        self.asked += 1
        if not self.log:
            return None
        last = self.log[-1]
        active = "" if last.batch.ends else last.batch.run
        return LogEnd(1, last.stream_seq, last.last_seq, last.batch.epoch, active)

    async def page(self, principal: Principal, thread: str, read: Read) -> Page:
        self.pages.append(read)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        found = [each for each in self.log if read.after < each.stream_seq <= read.upto][:2]
        last = found[-1].stream_seq if found else read.upto
        return Page(found, last)


class Sink:
    def __init__(self, principal: Principal = ANA) -> None:
        self.principal = principal
        self.items: list[FeedItem] = []
        self.stops: list[StopReason] = []
        self.full = False
        self.changed = asyncio.Event()

    def deliver(self, item: FeedItem) -> bool:
        if self.full:
            return False
        self.items.append(item)
        self.changed.set()
        return True

    async def room(self) -> None:
        """Always."""

    def stop(self, why: StopReason) -> None:
        self.stops.append(why)
        self.changed.set()

    @property
    def texts(self) -> list[str]:
        events = [each for each in self.items if isinstance(each, Events)]
        return [event.agent_thinking.text for each in events for event in each.events()]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds():
                self.changed.clear()
                await self.changed.wait()


class Watched:
    """A feed with what stands around it."""

    def __init__(self, tasks: TaskSet) -> None:
        self.history = MemoryHistory()
        self.breaches = 0
        self.lost = 0
        self.emptied = 0
        self.shared = Deliveries(
            self.history, tasks, 10_000, on_breach=self._breach, on_lost=self._lose
        )
        self.feed = self.another()

    def another(self) -> ThreadFeed:
        return ThreadFeed(ANA, THREAD, self.shared, self._empty)

    def _breach(self) -> None:
        self.breaches += 1

    def _lose(self) -> None:
        self.lost += 1

    def _empty(self) -> None:
        self.emptied += 1

    async def subscribe(self, sink: Sink, after: int = 0, feed: ThreadFeed | None = None) -> None:
        subscription = (feed or self.feed).add()
        await subscription.locate(after, 0, sink)
        subscription.go()


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    tasks = TaskSet("feed of a test")
    yield Watched(tasks)
    await tasks.close()


# --- polls -------------------------------------------------------------------------------------


async def ticks_until_polled(watched: Watched, limit: int = 20) -> int | None:
    for number in range(1, limit):
        if watched.feed.tick():
            await watched.feed.poll()
            return number
    return None


async def test_a_thread_at_rest_is_polled_rarely(watched: Watched) -> None:
    watched.history.write("a", ends=True)
    await watched.subscribe(Sink())
    assert await ticks_until_polled(watched) is None
    assert await ticks_until_polled(watched) == 30 - 19


async def test_of_a_run_elsewhere_whose_live_messages_are_all_lost_everything_is_shown(
    watched: Watched,
) -> None:
    sink = Sink()
    await watched.subscribe(sink)
    await watched.feed.poll()
    watched.history.write("lost", ends=True)
    assert await ticks_until_polled(watched, 40) == 30
    await sink.until(lambda: len(sink.texts) == 1)


async def test_a_run_that_begins_here_is_polled_for_although_the_thread_was_at_rest(
    watched: Watched,
) -> None:
    watched.history.write("a", ends=True)
    await watched.subscribe(Sink())
    watched.feed.run_begins()
    assert await ticks_until_polled(watched) == 1


async def test_a_thread_with_an_active_run_is_polled_less_and_less_often(watched: Watched) -> None:
    watched.history.write("a")
    await watched.subscribe(Sink())
    assert [await ticks_until_polled(watched) for _ in range(4)] == [1, 2, 4, 4]


async def test_a_live_message_makes_polls_frequent_again_and_an_ending_is_confirmed_once(
    watched: Watched,
) -> None:
    watched.history.write("a")
    await watched.subscribe(Sink())
    for _ in range(3):
        await ticks_until_polled(watched)
    watched.feed.on_live(watched.history.write("b", ends=True))
    assert [await ticks_until_polled(watched) for _ in range(2)] == [1, None]


async def test_after_an_outage_of_live_a_thread_at_rest_is_asked_for_once(watched: Watched) -> None:
    watched.history.write("a", ends=True)
    sink = Sink()
    await watched.subscribe(sink)
    watched.history.write("lost", ends=True)
    watched.feed.resync()
    assert await ticks_until_polled(watched) == 1
    await sink.until(lambda: len(sink.texts) == 2)
    assert watched.lost == 1
    assert await ticks_until_polled(watched) is None


async def test_a_live_message_that_overtakes_a_poll_is_not_confirmed_by_it(
    watched: Watched,
) -> None:
    watched.history.write("a")
    await watched.subscribe(Sink())
    newer = watched.history.write("b", ends=True)
    watched.history.log.pop()
    watched.feed.on_live(newer)
    await watched.feed.poll()
    watched.history.log.append(newer)
    assert await ticks_until_polled(watched) is not None


# --- reads -------------------------------------------------------------------------------------


async def test_joins_at_the_same_time_share_each_page(watched: Watched) -> None:
    for n in range(6):
        watched.history.write(f"e{n}")
    watched.history.gate.clear()
    sinks = [Sink() for _ in range(5)]
    for sink in sinks:
        await watched.subscribe(sink)
    await asyncio.sleep(0)
    watched.history.gate.set()
    for sink in sinks:
        await sink.until(lambda sink=sink: len(sink.texts) == 6)  # type: ignore[misc]
    assert len(watched.history.pages) == 3
    one, other = sinks[0].items, sinks[1].items
    assert all(a is b for a, b in zip(one, other, strict=True) if isinstance(a, Events))
    assert not watched.feed._pages


async def test_one_who_leaves_does_not_take_the_page_from_the_others(watched: Watched) -> None:
    watched.history.write("a")
    watched.history.gate.clear()
    leaving, staying = Sink(), Sink()
    first = watched.feed.add()
    await first.locate(0, 0, leaving)
    first.go()
    await watched.subscribe(staying)
    await asyncio.sleep(0)
    first.close()
    watched.history.gate.set()
    await staying.until(lambda: staying.texts == ["a"])
    assert leaving.texts == []


async def test_who_comes_back_reads_from_where_they_were(watched: Watched) -> None:
    sink = Sink()
    subscription = watched.feed.add()
    await subscription.locate(0, 0, sink)
    subscription.go()
    for n in range(8):
        watched.feed.on_live(watched.history.write(f"e{n}"))
    subscription.close()
    assert watched.emptied == 1
    again = Sink()
    await watched.subscribe(again, after=7, feed=watched.another())
    await again.until(lambda: again.texts == ["e7"])
    assert [read.after for read in watched.history.pages] == [watched.history.log[6].stream_seq]


async def test_a_read_that_nats_cannot_answer_is_made_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("factorychain_bridge.feed._RETRY_S", 0)
    watched.history.write("a")
    watched.history.error = NatsUnavailable("away", sent=False)
    sink = Sink()
    await watched.subscribe(sink)
    while len(watched.history.pages) < 3:  # noqa: ASYNC110 - the loop turns until it was asked
        await asyncio.sleep(0)
    watched.history.error = None
    await sink.until(lambda: sink.texts == ["a"])
    assert sink.stops == []


async def test_a_read_that_fails_for_good_closes_the_sink(watched: Watched) -> None:
    watched.history.write("a")
    watched.history.error = ValueError("a fault")
    sink = Sink()
    await watched.subscribe(sink)
    await sink.until(lambda: sink.stops == ["REPLAY_FAILED"])
    assert watched.feed.subscriptions == 0


# --- writes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "forged",
    [
        batch(1, "x", principal=BEN),
        batch(1, "x", principal=Principal("other", ANA.user)),
        batch(1, "x", thread="t2"),
    ],
)
async def test_what_is_not_the_sinks_own_is_never_written(watched: Watched, forged: object) -> None:
    sink = Sink()
    await watched.subscribe(sink)
    watched.feed.on_live(stored(10, forged))  # type: ignore[arg-type]  # a batch, as parametrized
    assert sink.items == [CaughtUp(THREAD, 0)]
    assert sink.stops == ["PRINCIPAL_MISMATCH"]
    assert watched.breaches == 1
    assert watched.feed.subscriptions == 0


async def test_a_sink_of_somebody_else_on_this_feed_gets_nothing(watched: Watched) -> None:
    mine, theirs = Sink(), Sink(BEN)
    await watched.subscribe(mine)
    await watched.subscribe(theirs)
    watched.feed.on_live(watched.history.write("a"))
    assert (mine.texts, theirs.texts) == (["a"], [])
    assert theirs.stops == ["PRINCIPAL_MISMATCH"]


async def test_nothing_is_delivered_before_go_and_nothing_is_missed_by_it(watched: Watched) -> None:
    watched.history.write("a")
    sink = Sink()
    subscription = watched.feed.add()
    watched.feed.on_live(watched.history.write("b"))
    await subscription.locate(2, EPOCH, sink)
    watched.feed.on_live(watched.history.write("c"))
    assert sink.items == []
    assert (subscription.at.last, subscription.at.active_run) == (2, RUN)
    subscription.go()
    assert sink.texts == ["c"]
    assert sink.items[0] == CaughtUp(THREAD, 2)


async def test_a_subscription_that_is_closed_before_go_stays_silent(watched: Watched) -> None:
    watched.history.write("a")
    sink = Sink()
    subscription = watched.feed.add()
    await subscription.locate(0, 0, sink)
    subscription.close()
    subscription.go()
    watched.feed.on_live(watched.history.write("b"))
    assert sink.items == []
    assert watched.emptied == 1


async def test_a_sink_that_is_full_is_let_go(watched: Watched) -> None:
    sink, other = Sink(), Sink()
    await watched.subscribe(sink)
    await watched.subscribe(other)
    sink.full = True
    watched.feed.on_live(watched.history.write("a"))
    watched.feed.on_live(watched.history.write("b"))
    assert other.texts == ["a", "b"]
    assert watched.feed.subscriptions == 1


def test_the_rest_of_a_batch_is_rendered_as_the_frame_that_clients_see() -> None:
    found = stored(10, batch(5, "a", "b", "c")).after(5)
    assert (found.first_seq, found.last_seq) == (6, 7)
    assert [(seq, kind) for seq, kind, _ in found.each()] == [
        (6, "agent_thinking"),
        (7, "agent_thinking"),
    ]
    assert found.json.startswith(b'{"op":"events","thread":"t1"')
    assert b'"seq":6' in found.json
    assert b'"seq":5' not in found.json
    assert found.json is found.json
