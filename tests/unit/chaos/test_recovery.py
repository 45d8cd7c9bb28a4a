"""Recovery is what users see of what was made, or asked for, after a fault; what was under way is none."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.chaos.recovery import Recovery, RecoveryWatch


def at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def test_an_event_that_was_made_before_is_no_recovery() -> None:
    recovery = Recovery(100.0)
    recovery.event(99.9, 103.0)
    assert recovery.event_s is None
    recovery.event(100.1, 104.0)
    recovery.event(100.2, 105.0)
    assert recovery.event_s == 4.0


def test_a_start_that_was_sent_before_is_none() -> None:
    recovery = Recovery(100.0)
    recovery.start(99.0, 103.0)
    assert recovery.start_s is None
    recovery.start(101.0, 104.0)
    assert recovery.start_s == 4.0


def test_users_are_served_again_when_both_came_after_the_fault_was_over() -> None:
    recovery = Recovery(100.0)
    recovery.event(101.0, 101.0)
    recovery.start(101.0, 101.0)
    assert not recovery.done.is_set()
    recovery.over = 102.0
    recovery.event(101.5, 103.0)
    assert not recovery.done.is_set()
    recovery.event(102.5, 103.0)
    assert not recovery.done.is_set()
    recovery.start(101.0, 103.0)
    assert recovery.done.is_set()


def test_the_watch_tells_the_fault_that_is_watched() -> None:
    watch = RecoveryWatch()
    watch.event({"at": at(1.0)})
    watch.watched = Recovery(100.0)
    watch.event({"at": at(99.0)})
    assert watch.watched.event_s is None
    watch.event({"at": at(100.5)})
    assert watch.watched.event_s is not None
