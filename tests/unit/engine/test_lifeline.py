"""When a run is cancelled or given up, by a clock that the test moves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from factorychain_engine.lifeline import (
    MAX_STEP_S,
    WAIT,
    Cancel,
    EndReason,
    LifeLimits,
    Lifeline,
    Settle,
    Sign,
)

LIMITS = LifeLimits(idle_s=60, lost_s=30, cancel_grace_s=20)
DEADLINE_S = 300.0


def begun() -> Lifeline:
    return Lifeline(DEADLINE_S, LIMITS, now_s=0)


def watched(lifeline: Lifeline, from_s: int, until_s: int) -> list[object]:
    """What it decides at every second, hearing of the agents each time."""
    steps: list[object] = []
    for now_s in range(from_s, until_s + 1):
        lifeline.heard(now_s)
        steps.append(lifeline.look(now_s))
    return steps


def test_a_lively_run_is_left_alone_until_its_deadline() -> None:
    steps = watched(begun(), 1, 300)
    assert set(steps[:-1]) == {WAIT}
    assert steps[-1] == Cancel(EndReason.DEADLINE)


def test_a_run_that_ignores_its_cancel_is_settled_after_the_grace() -> None:
    steps = watched(begun(), 1, 321)
    assert steps[-2] == Settle(EndReason.DEADLINE)
    assert steps[-3] == Cancel(EndReason.DEADLINE)


def test_silence_of_the_replica_loses_the_run() -> None:
    lifeline = begun()
    assert [lifeline.look(now_s) for now_s in (10, 20, 29)] == [WAIT] * 3
    assert lifeline.look(30) == Settle(EndReason.AGENT_LOST)


def test_time_before_the_last_word_was_no_silence() -> None:
    lifeline = begun()
    lifeline.heard(9)
    assert [lifeline.look(now_s) for now_s in (10, 20, 30, 38)] == [WAIT] * 4
    assert lifeline.look(39) == Settle(EndReason.AGENT_LOST)


def test_an_agent_without_a_sign_of_life_is_cancelled() -> None:
    lifeline = begun()
    lifeline.heard(0, Sign(idle_s=58))
    assert lifeline.look(1) == WAIT
    assert lifeline.look(2) == Cancel(EndReason.UNRESPONSIVE)


def test_the_first_reason_stays() -> None:
    lifeline = begun()
    lifeline.cancel(EndReason.USER)
    lifeline.cancel(EndReason.INTERRUPTED)
    assert lifeline.look(301) == Cancel(EndReason.USER)


def test_a_cancelled_run_whose_replica_is_silent_ends_as_cancelled() -> None:
    lifeline = begun()
    lifeline.cancel(EndReason.USER)
    for now_s in (10, 20):
        step = lifeline.look(now_s)
    assert step == Cancel(EndReason.USER)
    assert lifeline.look(30) == Settle(EndReason.USER)


@given(st.floats(min_value=31, max_value=280))
def test_time_in_which_this_process_stood_still_is_not_held_against_the_run(pause_s: float) -> None:
    lifeline = begun()
    lifeline.heard(0)
    assert lifeline.look(pause_s) == WAIT
    assert lifeline.look(pause_s + MAX_STEP_S) == WAIT
    lifeline.heard(pause_s)
    assert lifeline.look(pause_s + 2 * MAX_STEP_S - 1) == WAIT


def test_a_single_look_loses_nobody_however_short_the_silence_that_means_a_loss() -> None:
    limits = LifeLimits(idle_s=60, lost_s=6, cancel_grace_s=20)
    lifeline = Lifeline(300, limits, 0)
    lifeline.heard(0)
    assert lifeline.look(200) == WAIT
    assert [lifeline.look(202), lifeline.look(204)] == [WAIT, Settle(EndReason.AGENT_LOST)]


def test_a_clock_that_steps_back_ends_nothing() -> None:
    lifeline = begun()
    lifeline.heard(0)
    assert lifeline.look(-1000) == WAIT


def test_the_lifetime_stands_still_while_the_run_waits_for_its_user() -> None:
    lifeline = begun()
    lifeline.heard(100, Sign(waited_s=0.0, waiting=True))
    for now_s in range(101, 500):
        lifeline.heard(now_s, Sign(waited_s=now_s - 100, waiting=True))
        assert lifeline.look(now_s) == WAIT
    lifeline.heard(500, Sign(waited_s=400.0))
    assert lifeline.deadline_s(500) == DEADLINE_S + 400
    for now_s in range(501, 700):
        lifeline.heard(now_s, Sign(waited_s=400.0))
        assert lifeline.look(now_s) == WAIT
    assert lifeline.look(700) == Cancel(EndReason.DEADLINE)


def test_waiting_goes_on_between_two_words_of_the_replica() -> None:
    lifeline = begun()
    lifeline.heard(299, Sign(waited_s=0.0, waiting=True))
    assert lifeline.look(304) == WAIT
    assert lifeline.waited_s(304) == 5


def test_waiting_has_a_maximum_of_its_own() -> None:
    lifeline = Lifeline(DEADLINE_S, LifeLimits(60, 1e9, 20, ask_max_s=50), now_s=0)
    lifeline.heard(0, Sign(waited_s=0.0, waiting=True))
    assert watched(lifeline, 1, 349)[-1] == WAIT
    assert lifeline.look(350) == Cancel(EndReason.DEADLINE)


def test_a_deadline_ends_nothing_before_it_is_heard_for_how_long_the_run_has_waited() -> None:
    adopted = Lifeline(DEADLINE_S, LIMITS, now_s=400, known=False)
    adopted.heard(400)
    assert adopted.look(401) == WAIT
    adopted.heard(402, Sign(waited_s=200.0))
    assert adopted.look(402) == WAIT
    adopted.unheard()
    assert adopted.look(503) == WAIT
    adopted.heard(504, Sign(waited_s=200.0))
    assert adopted.look(504) == Cancel(EndReason.DEADLINE)
