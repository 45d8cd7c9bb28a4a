"""The queue of one socket."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from factorychain_bridge.edge.outbox import Outbox


def test_frames_come_out_in_order_and_count_until_they_are_written() -> None:
    outbox = Outbox(100)
    assert outbox.put(b"one")
    assert outbox.put(b"three")
    assert outbox.next() == b"one"
    assert outbox.size_bytes == 8
    outbox.done(3)
    assert outbox.size_bytes == 5
    assert outbox.next() == b"three"
    assert outbox.next() is None


def test_what_does_not_fit_is_refused() -> None:
    outbox = Outbox(10)
    assert outbox.put(b"x" * 6)
    assert not outbox.put(b"x" * 5)
    assert outbox.put(b"x" * 4)


def test_one_frame_over_the_limit_is_taken_when_nothing_else_is_there() -> None:
    outbox = Outbox(10)
    assert outbox.put(b"x" * 50)
    assert not outbox.put(b"x")


def test_a_reserved_frame_counts_before_it_is_queued() -> None:
    outbox = Outbox(10)
    assert outbox.reserve(8)
    assert not outbox.put(b"xxx")
    outbox.put_reserved(b"x" * 8)
    assert outbox.next() == b"x" * 8


async def test_who_waits_for_room_goes_on_when_half_is_free() -> None:
    outbox = Outbox(10)
    outbox.put(b"x" * 4)
    await outbox.room()
    outbox.put(b"x" * 4)
    waiting = asyncio.create_task(outbox.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    outbox.next()
    outbox.done(4)
    await waiting


async def test_closing_wakes_everybody_and_takes_nothing_more() -> None:
    outbox = Outbox(10)
    outbox.put(b"x" * 9)
    waiting = [asyncio.create_task(outbox.room()), asyncio.create_task(outbox.wait())]
    await asyncio.sleep(0)
    outbox.close()
    await asyncio.gather(*waiting)
    assert not outbox.put(b"x")
    assert outbox.next() == b"x" * 9


def test_what_is_cleared_is_not_counted() -> None:
    outbox = Outbox(10)
    outbox.put(b"xxx")
    outbox.put(b"xx")
    outbox.next()
    outbox.clear()
    assert (outbox.size_bytes, len(outbox)) == (3, 0)


@given(st.lists(st.tuples(st.sampled_from(["put", "take"]), st.integers(1, 40)), max_size=100))
def test_the_count_is_what_is_there_and_never_over_the_limit(steps: list[tuple[str, int]]) -> None:
    outbox = Outbox(50)
    queued: list[int] = []
    for step, size in steps:
        if step == "put":
            if outbox.put(b"x" * size):
                queued.append(size)
            else:
                assert sum(queued) + size > 50
        else:
            frame = outbox.next()
            assert (frame is None) == (not queued)
            if frame is not None:
                outbox.done(len(frame))
                assert len(frame) == queued.pop(0)
        assert outbox.size_bytes == sum(queued) <= 50
