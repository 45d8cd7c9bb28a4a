"""How long a run has waited for its user."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from factorychain._instance.waiting import Waiting


def test_questions_that_are_open_at_once_count_once() -> None:
    waiting = Waiting(100)
    waiting.begin(10)
    waiting.begin(12)
    waiting.end(15)
    assert (waiting.now, waiting.waited_s(16)) == (True, 6)
    waiting.end(20)
    assert (waiting.now, waiting.waited_s(50)) == (False, 10)
    waiting.begin(60)
    assert waiting.waited_s(61) == 11


def test_it_is_never_more_than_the_run_may_wait() -> None:
    waiting = Waiting(5)
    waiting.begin(0)
    assert (waiting.waited_s(4), waiting.left_s(4)) == (4, 1)
    assert (waiting.waited_s(40), waiting.left_s(40)) == (5, 0)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), max_size=8))
def test_it_is_the_time_in_which_something_was_open(spans: list[tuple[float, float]]) -> None:
    spans = [(min(each), max(each)) for each in spans]
    waiting = Waiting(1000)
    moments = [(at, 0) for at, _ in spans] + [(at, 1) for _, at in spans]
    for at, kind in sorted(moments):
        (waiting.end if kind else waiting.begin)(at)
    covered, until = 0.0, 0.0
    for begin, end in sorted(spans):
        covered += max(0.0, end - max(begin, until))
        until = max(until, end)
    assert abs(waiting.waited_s(100) - covered) < 1e-9
