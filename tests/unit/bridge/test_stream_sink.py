"""A gRPC subscriber as a sink: bounded, told when it is too slow, never given more once stopped."""

from __future__ import annotations

import asyncio

import pytest

from factorychain.errors import ChainDegraded, SlowConsumer
from factorychain_bridge.items import CaughtUp, Reset, ResetReason, StopReason
from factorychain_bridge.stream_sink import StreamSink
from tests.unit.bridge.samples import ANA, EPOCH, RUN, THREAD, batch, stored


async def test_items_become_messages_with_seq_and_run() -> None:
    sink = StreamSink(ANA, 10_000)
    assert sink.deliver(Reset(THREAD, EPOCH, ResetReason.LOG_EXPIRED))
    assert sink.deliver(stored(10, batch(5, "a", "b")).after(5))
    assert sink.deliver(CaughtUp(THREAD, 6))
    reset, events, caught_up = [await sink.next() for _ in range(3)]
    assert (reset.reset.epoch, reset.reset.reason) == (EPOCH, "LOG_EXPIRED")
    assert [(each.seq, each.run) for each in events.events.events] == [(6, RUN)]
    assert caught_up.caught_up.seq == 6


async def test_a_message_is_made_without_touching_what_others_are_given() -> None:
    shared = stored(10, batch(1, "a"))
    sink = StreamSink(ANA, 10_000)
    sink.deliver(shared.whole)
    await sink.next()
    assert (shared.batch.events[0].seq, shared.batch.events[0].run) == (0, "")


async def test_who_does_not_keep_up_hears_so_after_what_was_queued() -> None:
    sink = StreamSink(ANA, 100)
    item = stored(10, batch(1, "x" * 200)).whole
    assert sink.deliver(item)
    assert not sink.deliver(item)
    assert not sink.deliver(item)
    assert (await sink.next()).HasField("events")
    with pytest.raises(SlowConsumer):
        await sink.next()


async def test_replay_waits_for_room() -> None:
    sink = StreamSink(ANA, 100)
    await sink.room()
    sink.deliver(stored(10, batch(1, "x" * 200)).whole)
    waiting = asyncio.ensure_future(sink.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await sink.next()
    await waiting


async def test_once_stopped_nothing_that_waits_is_written() -> None:
    sink = StreamSink(ANA, 10_000)
    sink.deliver(stored(10, batch(1, "a")).whole)
    sink.stop(StopReason.PRINCIPAL_MISMATCH)
    with pytest.raises(ChainDegraded):
        await sink.next()
