"""Joining a thread from any position, whatever live traffic comes, comes twice or is lost."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factorychain_bridge.items import CaughtUp, Events, FeedItem, Reset, ResetReason, Stored
from factorychain_bridge.join import Join, LogEnd, Read, Stage
from tests.unit.bridge.samples import EPOCH, THREAD, batch, stored

BUFFER = 10_000


def log_of(*sizes: int, epoch: int = EPOCH, first_stream_seq: int = 10) -> list[Stored]:
    """A thread's log, one batch for each size; every third stream sequence is this thread's."""
    found: list[Stored] = []
    seq, previous = 1, None
    for number, size in enumerate(sizes):
        stream_seq = first_stream_seq + 3 * number
        texts = [f"e{n}" for n in range(seq, seq + size)]
        found.append(stored(stream_seq, batch(seq, *texts, epoch=epoch), previous))
        previous = stream_seq
        seq += size
    return found


def end_of(log: list[Stored]) -> LogEnd | None:
    if not log:
        return None
    last = log[-1]
    return LogEnd(log[0].batch.first_seq, last.stream_seq, last.last_seq, last.batch.epoch)


class Client:
    """Keeps what it is given, and checks that it may be given it."""

    def __init__(self, after: int = 0, epoch: int = 0) -> None:
        self.seq, self.epoch = after, epoch
        self.texts: list[str] = []
        self.others: list[FeedItem] = []

    def take(self, items: Iterable[FeedItem]) -> None:
        for item in items:
            if isinstance(item, Events):
                if self.seq == -1:
                    self.seq = item.first_seq - 1
                assert item.first_seq == self.seq + 1, f"a gap or a repeat: {item} after {self.seq}"
                assert self.epoch in (0, item.epoch), f"another epoch without a reset: {item}"
                self.seq, self.epoch = item.last_seq, item.epoch
                self.texts += [event.agent_thinking.text for event in item.events()]
                continue
            self.others.append(item)
            if isinstance(item, Reset):
                self.texts.clear()
                self.epoch = item.epoch
                # Everything that there is follows, from wherever it starts.
                self.seq = -1
            elif self.seq == -1:
                self.seq = item.seq
            if isinstance(item, CaughtUp):
                assert item.seq == self.seq


def drive(join: Join, client: Client, log: list[Stored]) -> None:
    """Do the reads that the join asks for, until it asks for none."""
    while (read := join.read) is not None:
        for each in log:
            if read.after < each.stream_seq <= read.upto:
                client.take(join.on_history(each))
        client.take(join.on_read_done())


def joined(log: list[Stored], after: int, epoch: int = 0) -> tuple[Join, Client]:
    join, client = Join(THREAD, BUFFER), Client(after, epoch)
    client.take(join.start(after, epoch, end_of(log)))
    drive(join, client, log)
    return join, client


# --- positions ---------------------------------------------------------------------------------


def test_from_every_position_the_rest_is_delivered_also_from_the_middle_of_a_batch() -> None:
    log = log_of(3, 1, 4, 2)
    for after in range(11):
        join, client = joined(log, after)
        assert client.texts == [f"e{n}" for n in range(after + 1, 11)]
        assert client.others == [CaughtUp(THREAD, 10)]
        assert join.stage is Stage.LIVE


def test_a_client_that_has_everything_costs_no_read() -> None:
    join = Join(THREAD, BUFFER)
    assert join.start(10, EPOCH, end_of(log_of(3, 7))) == [CaughtUp(THREAD, 10)]
    assert join.read is None


def test_an_empty_thread_is_caught_up_at_0() -> None:
    join, client = joined([], 0)
    assert client.others == [CaughtUp(THREAD, 0)]
    client.take(join.on_live(log_of(2)[0]))
    assert client.texts == ["e1", "e2"]


def test_a_position_in_a_thread_that_has_aged_out_is_reset() -> None:
    join, client = joined([], 7, EPOCH)
    assert client.others == [Reset(THREAD, 0, ResetReason.LOG_EXPIRED), CaughtUp(THREAD, 0)]
    client.take(join.on_live(log_of(2, epoch=EPOCH + 9)[0]))
    assert client.texts == ["e1", "e2"]


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_position_before_the_start_of_what_is_kept_is_reset_to_that_start(after: int) -> None:
    log = log_of(3, 2, 4, 1)[2:]
    _, client = joined(log, after, EPOCH)
    assert client.others[0] == Reset(THREAD, EPOCH, ResetReason.LOG_EXPIRED)
    assert client.texts == ["e6", "e7", "e8", "e9", "e10"]


def test_a_position_just_before_the_start_of_what_is_kept_holds() -> None:
    _, client = joined(log_of(3, 2, 4)[1:], 3, EPOCH)
    assert client.others == [CaughtUp(THREAD, 9)]


def test_a_wrong_epoch_is_reset_whatever_the_position() -> None:
    for after in (0, 2, 5, 99):
        _, client = joined(log_of(3, 2), after, EPOCH - 1)
        assert client.others[0] == Reset(THREAD, EPOCH, ResetReason.EPOCH_CHANGED)
        assert client.texts == ["e1", "e2", "e3", "e4", "e5"]


def test_a_position_that_the_thread_has_never_had_is_reset() -> None:
    _, client = joined(log_of(3), 4, EPOCH)
    assert client.others[0] == Reset(THREAD, EPOCH, ResetReason.POSITION_UNKNOWN)
    assert client.texts == ["e1", "e2", "e3"]


# --- live --------------------------------------------------------------------------------------


def test_what_arrives_while_history_is_read_follows_it_once() -> None:
    log = log_of(3, 2, 4)
    join, client = Join(THREAD, BUFFER), Client()
    client.take(join.on_live(log[1]))
    client.take(join.start(0, 0, end_of(log[:2])))
    client.take(join.on_live(log[2]))
    assert client.texts == []
    drive(join, client, log)
    assert client.texts == [f"e{n}" for n in range(1, 10)]
    assert client.others == [CaughtUp(THREAD, 5)]


def test_a_message_that_comes_twice_is_delivered_once() -> None:
    log = log_of(3, 2)
    join, client = joined(log[:1], 0)
    for each in (log[0], log[1], log[1], log[0]):
        client.take(join.on_live(each))
    assert client.texts == ["e1", "e2", "e3", "e4", "e5"]


def test_a_gap_is_read_and_what_follows_waits() -> None:
    log = log_of(1, 1, 1, 1)
    join, client = joined(log[:1], 0)
    client.take(join.on_live(log[2]))
    assert join.read == Read(log[0].stream_seq, log[2].stream_seq)
    client.take(join.on_live(log[3]))
    drive(join, client, log)
    assert client.texts == ["e1", "e2", "e3", "e4"]
    assert join.buffered_bytes == 0


def test_a_lost_last_message_is_read_when_a_poll_finds_it() -> None:
    log = log_of(2, 3)
    join, client = joined(log[:1], 0)
    end = end_of(log)
    assert end is not None
    join.on_end(end)
    drive(join, client, log)
    assert client.texts == ["e1", "e2", "e3", "e4", "e5"]


def test_a_poll_while_history_is_read_is_not_forgotten() -> None:
    log = log_of(2, 3, 1)
    join, client = Join(THREAD, BUFFER), Client()
    client.take(join.start(0, 0, end_of(log[:1])))
    end = end_of(log)
    assert end is not None
    join.on_end(end)
    drive(join, client, log)
    assert client.texts == ["e1", "e2", "e3", "e4", "e5", "e6"]
    assert client.others == [CaughtUp(THREAD, 2)]


def test_a_poll_that_finds_nothing_new_asks_for_no_read() -> None:
    log = log_of(2, 3)
    join, _ = joined(log, 0)
    end = end_of(log)
    assert end is not None
    join.on_end(end)
    assert join.read is None


def test_the_buffer_is_bounded_and_what_did_not_fit_is_read() -> None:
    log = log_of(*[1] * 50)
    room = sum(each.size_bytes for each in log[2:7])
    join, client = Join(THREAD, room), Client()
    client.take(join.start(0, 0, end_of(log[:2])))
    for each in log[2:]:
        client.take(join.on_live(each))
        assert join.buffered_bytes <= room
    drive(join, client, log)
    assert client.texts == [f"e{n}" for n in range(1, 51)]
    assert join.buffered_bytes == 0
    assert join.stage is Stage.LIVE


# --- epochs ------------------------------------------------------------------------------------


def test_a_new_numbering_begins_with_a_reset() -> None:
    join, client = joined(log_of(3), 0)
    renewed = log_of(2, epoch=EPOCH + 1, first_stream_seq=90)
    client.take(join.on_live(renewed[0]))
    assert client.others[-1] == Reset(THREAD, EPOCH + 1, ResetReason.EPOCH_CHANGED)


def test_a_new_numbering_whose_start_was_lost_is_read_from_its_start() -> None:
    join, client = joined(log_of(3), 0)
    renewed = log_of(2, 1, 1, epoch=EPOCH + 1, first_stream_seq=90)
    client.take(join.on_live(renewed[2]))
    drive(join, client, renewed)
    assert client.texts == ["e1", "e2", "e3", "e4"]
    assert [type(each) for each in client.others].count(Reset) == 1


def test_history_that_ages_out_while_it_is_read_is_a_reset() -> None:
    log = log_of(1, 1, 1, 1)
    join, client = Join(THREAD, BUFFER), Client()
    client.take(join.start(1, EPOCH, end_of(log)))
    drive(join, client, log[2:])
    assert client.others == [Reset(THREAD, EPOCH, ResetReason.LOG_EXPIRED), CaughtUp(THREAD, 4)]
    assert client.texts == ["e3", "e4"]


# --- the start of a run ------------------------------------------------------------------------


def test_a_start_delivers_what_was_kept_for_it_and_says_nothing_else() -> None:
    log = log_of(3, 1, 2)
    join, client = Join(THREAD, BUFFER), Client(3, EPOCH)
    for each in log:
        client.take(join.on_live(each))
    client.take(join.start_here(3, EPOCH))
    assert client.texts == ["e4", "e5", "e6"]
    assert client.others == []


def test_a_start_whose_first_events_were_lost_reads_them() -> None:
    log = log_of(3, 1, 2)
    join, client = Join(THREAD, BUFFER), Client(3, EPOCH)
    client.take(join.start_here(3, EPOCH))
    client.take(join.on_live(log[2]))
    drive(join, client, log)
    assert client.texts == ["e4", "e5", "e6"]


# --- anything ----------------------------------------------------------------------------------


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_whatever_is_lost_or_doubled_every_event_after_the_position_comes_once(
    data: st.DataObject,
) -> None:
    log = log_of(*data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=12)))
    aged_out = data.draw(st.integers(0, len(log) - 1))
    known = data.draw(st.integers(aged_out, len(log)))
    first, last = log[aged_out].batch.first_seq, log[-1].last_seq
    after = data.draw(st.integers(0, last))
    join = Join(THREAD, data.draw(st.sampled_from([0, 200, BUFFER])))
    client = Client(after, EPOCH)
    kept = log[aged_out:]
    # Live: in order, each message zero to two times, before and after the join is told where it stands.
    heard = [each for each in log for _ in range(data.draw(st.integers(0, 2)))]
    before = data.draw(st.integers(0, len(heard)))
    for each in heard[:before]:
        client.take(join.on_live(each))
    position_known = known > aged_out
    if position_known and after <= log[known - 1].last_seq:
        client.take(join.start(after, EPOCH, end_of(log[aged_out:known])))
        began = max(after, first - 1)
    else:
        after = began = log[aged_out].batch.first_seq - 1
        client.seq = after
        client.take(join.start_here(after, EPOCH))
    end = end_of(kept)
    assert end is not None
    for each in heard[before:]:
        if data.draw(st.booleans()):
            drive(join, client, kept)
        client.take(join.on_live(each))
        if data.draw(st.booleans()):
            join.on_end(end)
    for _ in range(2):
        drive(join, client, kept)
        join.on_end(end)
    assert client.texts == [f"e{n}" for n in range(began + 1, last + 1)]
    assert join.stage is Stage.LIVE
    assert join.buffered_bytes == 0
    assert sum(isinstance(each, CaughtUp) for each in client.others) <= 1
