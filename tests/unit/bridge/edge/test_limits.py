"""Token buckets and places for sockets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from factorychain._core.ids import Principal
from factorychain_bridge.edge.limits import ConnectionCounts, TokenBucket

A, B = Principal("t", "a"), Principal("t", "b")


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_burst_is_allowed_and_then_the_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(10, 50, clock)
    assert [bucket.take() for _ in range(51)] == [True] * 50 + [False]
    assert 0 < bucket.wait_s() <= 0.1
    clock.now_s += 0.1
    assert [bucket.take(), bucket.take()] == [True, False]


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    clock = Clock()
    bucket = TokenBucket(10, 1, clock)
    assert bucket.take()
    clock.now_s -= 100
    assert not bucket.take()


@given(st.lists(st.floats(0, 5), min_size=1, max_size=200))
def test_never_more_than_the_burst_and_the_rate_together(pauses: list[float]) -> None:
    clock = Clock()
    bucket = TokenBucket(10, 5, clock)
    taken = 0
    for pause_s in pauses:
        clock.now_s += pause_s
        while bucket.take():
            taken += 1
    assert taken <= 5 + 10 * sum(pauses) + 1e-6


def test_places_are_counted_by_user() -> None:
    counts = ConnectionCounts(2)
    first, second = counts.take(A), counts.take(A)
    assert first is not None
    assert second is not None
    assert counts.take(A) is None
    assert counts.take(B) is not None
    first.release()
    first.release()
    assert counts.of(A) == 1
    assert counts.take(A) is not None
    assert counts.take(A) is None


def test_a_user_without_sockets_leaves_nothing_behind() -> None:
    counts = ConnectionCounts(1)
    place = counts.take(A)
    assert place is not None
    assert counts.users() == 1
    place.release()
    assert (counts.users(), counts.of(A)) == (0, 0)
