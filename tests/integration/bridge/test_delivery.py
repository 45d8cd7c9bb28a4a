"""Threads come to their sinks: live, replayed, from every position, over losses; and to nobody else."""

from __future__ import annotations

import asyncio

from factorychain._core.ids import log_subject, thread_key
from factorychain._core.nats_connection import NatsState
from factorychain._core.stored import StoredMessage
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain_bridge.hub import HubStatistics, lost_live, mismatches
from factorychain_bridge.items import Events
from tests.integration.bridge.replica import Collected, Replica
from tests.nats_fixture import NatsServer
from tests.unit.bridge.samples import (
    ANA,
    BEN,
    EPOCH,
    OTHER_RUN,
    THREAD,
    batch,
    completed,
    context,
    thinking,
)
from tests.waiting import until, until_true

EMPTY = HubStatistics(users=0, feeds=0, subscriptions=0)


def subject() -> str:
    return log_subject(1, ANA.ukey, thread_key(THREAD))


async def append(replica: Replica, found: LogBatch) -> int:
    """Straight into the log, as another replica's writer does."""
    return await replica.js.stream("EVENTS-0").publish(subject(), found.SerializeToString())


async def filled(replica: Replica, *sizes: int, epoch: int = EPOCH) -> list[int]:
    """A thread with one message for each size; their stream sequences."""
    seq, found = 1, []
    for size in sizes:
        texts = [f"e{n}" for n in range(seq, seq + size)]
        found.append(await append(replica, batch(seq, *texts, epoch=epoch)))
        seq += size
    return found


def texts(first: int, last: int) -> list[str]:
    return [f"e{n}" for n in range(first, last + 1)]


async def test_events_reach_every_subscribed_sink_on_every_replica(
    replica: Replica, other_replica: Replica
) -> None:
    sinks = [Collected(), Collected(), Collected()]
    places = [replica, replica, other_replica]
    held = [await place.hub.connect(ANA) for place in places]
    for sink, place in zip(sinks, places, strict=True):
        await place.subscribe(sink)
    sender = await replica.open(context())
    for n in range(1, 101):
        sender.send((n, thinking(f"e{n}")))
    sender.send((101, completed()))
    for sink in sinks:
        await sink.has(101)
        assert sink.texts == [*texts(1, 100), ""]
    # Rendered once: both sinks of one replica were given the same objects.
    one, two = ([each for each in sink.items if isinstance(each, Events)] for sink in sinks[:2])
    assert all(a is b for a, b in zip(one, two, strict=True))
    for each in held:
        each.close()


async def test_replay_from_every_seq_also_from_the_middle_of_a_batch(replica: Replica) -> None:
    await filled(replica, 3, 1, 4, 2)
    held = await replica.hub.connect(ANA)
    for after in range(11):
        sink = Collected(after=after)
        subscription = await replica.subscribe(sink, after, EPOCH)
        at = subscription.at
        assert (at.first, at.last, at.epoch, at.active_run) == (1, 10, EPOCH, context().run)
        await sink.until(lambda found: found.caught_up)
        assert sink.texts == texts(after + 1, 10)
        assert sink.resets == []
        subscription.close()
    held.close()
    await released(replica)


async def test_an_empty_thread_is_caught_up_at_once(replica: Replica) -> None:
    held = await replica.hub.connect(ANA)
    sink = Collected()
    subscription = await replica.subscribe(sink)
    assert (subscription.at.first, subscription.at.last, subscription.at.active_run) == (0, 0, "")
    assert sink.caught_up
    await filled(replica, 2)
    await sink.has(2)
    held.close()


async def test_what_has_aged_out_is_a_reset_and_then_what_is_left(replica: Replica) -> None:
    stream_seqs = await filled(replica, 3, 1, 4, 2)
    await purge(replica, before=stream_seqs[2])
    held = await replica.hub.connect(ANA)
    for after in (0, 2, 3):
        sink = Collected(after=after)
        subscription = await replica.subscribe(sink, after, EPOCH)
        assert subscription.at.first == 5
        await sink.until(lambda found: found.caught_up)
        assert sink.resets == ["LOG_EXPIRED"]
        assert sink.texts == texts(5, 10)
    holds = Collected(after=4)
    await replica.subscribe(holds, 4, EPOCH)
    await holds.has(6)
    assert holds.resets == []
    held.close()


async def test_a_wrong_epoch_and_an_unknown_position_are_resets(replica: Replica) -> None:
    await filled(replica, 3, 2)
    held = await replica.hub.connect(ANA)
    for after, epoch, reason in ((3, EPOCH - 1, "EPOCH_CHANGED"), (9, EPOCH, "POSITION_UNKNOWN")):
        sink = Collected(after=after)
        await replica.subscribe(sink, after, epoch)
        await sink.has(5)
        assert (sink.resets, sink.texts) == ([reason], texts(1, 5))
    held.close()


async def test_a_thread_that_is_numbered_anew_while_it_is_watched_is_a_reset(
    replica: Replica,
) -> None:
    stream_seqs = await filled(replica, 3)
    held = await replica.hub.connect(ANA)
    sink = Collected()
    await replica.subscribe(sink)
    await sink.has(3)
    await purge(replica, before=stream_seqs[-1] + 1)
    sender = await replica.open(context(run=OTHER_RUN, base=stream_seqs[-1], base_seq=3))
    sender.send((1, thinking("anew")), (2, completed()))
    await sink.until(lambda found: found.texts == ["anew", ""])
    assert sink.resets == ["EPOCH_CHANGED"]
    held.close()


async def test_a_long_history_is_read_at_the_sinks_pace_and_live_follows_it(
    replica: Replica,
) -> None:
    await filled(replica, *[1] * 300)
    held = await replica.hub.connect(ANA)
    sink = Collected()
    sink.hold()
    await replica.subscribe(sink)
    for n in range(301, 401):
        await append(replica, batch(n, f"e{n}"))
    assert sink.texts == []
    sink.resume()
    await sink.has(400)
    assert sink.texts == texts(1, 400)
    held.close()


async def test_joins_of_one_thread_share_their_reads(replica: Replica) -> None:
    await filled(replica, *[1] * 200)
    reads = 0
    stream = replica.reader.locate(ANA, THREAD)[0]
    original = stream.read_range

    async def counted(
        subject: str, from_seq: int, *, batch: int = 0, max_bytes: int = 0
    ) -> tuple[list[StoredMessage], bool]:
        nonlocal reads
        reads += 1
        return await original(subject, from_seq, batch=batch, max_bytes=max_bytes)

    stream.read_range = counted  # type: ignore[method-assign]  # counts the calls
    held = await replica.hub.connect(ANA)
    sinks = [Collected() for _ in range(16)]
    await asyncio.gather(*(replica.subscribe(sink) for sink in sinks))
    for sink in sinks:
        await sink.has(200)
    assert reads < 16
    held.close()


async def test_a_lost_last_message_is_found_by_a_poll(replica: Replica) -> None:
    held = await replica.hub.connect(ANA)
    sink = Collected()
    await replica.subscribe(sink)
    await filled(replica, 2)
    await sink.has(2)
    lost_before = lost_live.value()
    user = replica.hub._users[ANA.ukey]
    assert user._live is not None
    user._live.closed = True  # what is live is lost from here on
    await append(replica, batch(3, "e3", "e4", ends=True))
    await sink.has(4)
    assert sink.texts == ["e1", "e2", "e3", ""]
    assert lost_live.value() == lost_before + 1
    held.close()


async def test_a_gap_in_what_is_live_is_read_from_the_log(replica: Replica) -> None:
    held = await replica.hub.connect(ANA)
    sink = Collected()
    await replica.subscribe(sink)
    await filled(replica, 1)
    await sink.has(1)
    user = replica.hub._users[ANA.ukey]
    assert user._live is not None
    user._live.closed = True
    await append(replica, batch(2, "e2"))
    await replica.live.flush()
    user._live.closed = False
    await append(replica, batch(3, "e3", ends=True))
    await sink.has(3)
    held.close()


async def test_what_was_written_while_the_live_connection_was_away_is_delivered(
    replica: Replica, other_replica: Replica, nats_server: NatsServer
) -> None:
    await filled(replica, 1)
    held = await replica.hub.connect(ANA)
    sink = Collected()
    await replica.subscribe(sink)
    await sink.has(1)
    replica.live._on_disconnected(replica.live.nc)
    replica.hub._users[ANA.ukey]._live.closed = True  # type: ignore[union-attr]  # it is listening
    await append(other_replica, batch(2, "e2", ends=True))
    replica.live._enter(NatsState.CONNECTED)
    await sink.has(2)
    held.close()


async def test_a_start_keeps_what_arrives_before_its_reply(replica: Replica) -> None:
    await filled(replica, 3)
    held = await replica.hub.connect(ANA)
    pending = replica.hub.prepare(ANA, THREAD)
    await append(replica, batch(4, "e4", "e5"))
    await replica.live.flush()
    sink = Collected(after=3)
    pending.attach(sink, 3, EPOCH)
    await append(replica, batch(6, "e6", ends=True))
    await sink.has(3)
    assert sink.texts == ["e4", "e5", ""]
    assert not sink.caught_up
    pending.close()
    held.close()
    await released(replica)


async def test_a_repeated_start_of_a_run_that_is_over_delivers_its_events(replica: Replica) -> None:
    await filled(replica, 3)
    await append(replica, batch(4, "e4", "e5", ends=True))
    held = await replica.hub.connect(ANA)
    pending = replica.hub.prepare(ANA, THREAD)
    sink = Collected(after=3)
    pending.attach(sink, 3, EPOCH)
    await sink.has(2)
    assert sink.texts == ["e4", ""]
    held.close()


async def test_a_sink_that_refuses_is_let_go_and_disturbs_nobody(replica: Replica) -> None:
    held = await replica.hub.connect(ANA)
    slow, quick = Collected(limit=3), Collected()
    for sink in (slow, quick):
        await replica.subscribe(sink)
    for n in range(1, 21):
        await append(replica, batch(n, f"e{n}"))
    await quick.has(20)
    assert len(slow.items) == 3
    assert replica.hub.statistics().subscriptions == 1
    held.close()


async def test_an_event_of_somebody_else_closes_the_sink_and_is_counted(replica: Replica) -> None:
    """A forged batch on ana's subject that says ben's name, and ben's batch on ana's subject."""
    held = await replica.hub.connect(ANA)
    sink = Collected()
    await replica.subscribe(sink)
    before = mismatches.value()
    await append(replica, batch(1, "for ben only", principal=BEN))

    await until_true(lambda: sink.stops)
    assert sink.stops == ["PRINCIPAL_MISMATCH"]
    assert sink.texts == []
    assert mismatches.value() == before + 1
    assert replica.hub.statistics().subscriptions == 0
    replayed = Collected()
    await replica.subscribe(replayed)

    await until_true(lambda: replayed.stops)
    assert replayed.texts == []
    held.close()


async def test_a_batch_of_another_thread_on_this_threads_subject_is_a_breach(
    replica: Replica,
) -> None:
    held = await replica.hub.connect(ANA)
    sink = Collected()
    await replica.subscribe(sink)
    await append(replica, batch(1, "elsewhere", thread="t2"))

    await until_true(lambda: sink.stops)
    assert sink.texts == []
    held.close()


async def released(replica: Replica) -> None:
    async def ask() -> bool:
        return replica.hub.statistics() == EMPTY and len(replica.live._subscriptions) == 0

    await until(ask)


async def test_a_user_is_listened_to_as_long_as_somebody_holds_it(replica: Replica) -> None:
    one, two = await asyncio.gather(replica.hub.connect(ANA), replica.hub.connect(ANA))
    assert len(replica.live._subscriptions) == 1
    one.close()
    one.close()
    assert replica.hub.statistics().users == 1
    subscription = replica.hub.prepare(ANA, THREAD)
    two.close()
    assert replica.hub.statistics().users == 1
    subscription.cancel()
    await released(replica)


async def purge(replica: Replica, *, before: int) -> None:
    """As if everything of the thread before this stream sequence had aged out."""
    body = f'{{"filter": "{subject()}", "seq": {before}}}'.encode()
    await replica.log.requests.one("$JS.API.STREAM.PURGE.EVENTS-0", body)
