"""Remembered places in the log: hints that never make a reader miss anything, bounded in all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from factorychain_bridge.positions import RecentPositions, ThreadPositions
from tests.unit.bridge.samples import ANA, BEN, EPOCH


def positions(*last_seqs: int) -> ThreadPositions:
    found = ThreadPositions()
    for number, last_seq in enumerate(last_seqs):
        found.add(EPOCH, last_seq, 100 + number)
    return found


def test_a_reader_begins_behind_the_last_message_of_which_it_has_everything() -> None:
    found = positions(3, 5, 9)
    assert [found.before(EPOCH, seq) for seq in (0, 2, 3, 4, 5, 8, 9, 50)] == [
        0, 0, 100, 100, 101, 101, 102, 102,
    ]  # fmt: skip


def test_a_position_of_another_epoch_says_nothing() -> None:
    assert positions(3, 5).before(EPOCH + 1, 5) == 0


@given(st.integers(0, 600), st.integers(0, 600))
def test_a_sparse_hint_is_never_beyond_the_full_one(messages: int, seq: int) -> None:
    full = positions(*range(1, messages + 1))
    recent = RecentPositions()
    recent.keep(ANA.ukey, "t1", full)
    sparse = recent.take(ANA.ukey, "t1")
    assert sparse.before(EPOCH, seq) <= full.before(EPOCH, seq)
    assert sparse.before(EPOCH, messages) == full.before(EPOCH, messages)


def test_threads_are_kept_apart_by_user_and_given_once() -> None:
    recent = RecentPositions()
    recent.keep(ANA.ukey, "t1", positions(1))
    recent.keep(BEN.ukey, "t1", positions(2, 3))
    assert recent.take(ANA.ukey, "t1").before(EPOCH, 9) == 100
    assert recent.take(ANA.ukey, "t1").before(EPOCH, 9) == 0
    assert recent.take(BEN.ukey, "t1").before(EPOCH, 9) == 101


def test_what_nobody_comes_back_for_is_forgotten_after_two_rounds() -> None:
    recent = RecentPositions()
    recent.keep(ANA.ukey, "t1", positions(1))
    recent.forget()
    recent.keep(ANA.ukey, "t2", positions(1))
    assert len(recent) == 2
    recent.forget()
    assert len(recent) == 1
    recent.forget()
    assert len(recent) == 0


def test_no_more_threads_are_kept_than_the_limit() -> None:
    recent = RecentPositions(max_threads=2)
    for thread in ("t1", "t2", "t3"):
        recent.keep(ANA.ukey, thread, positions(1))
    assert len(recent) == 2
