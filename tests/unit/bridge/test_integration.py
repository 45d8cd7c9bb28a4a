"""The integration's states: what leads from one to the other, and how recovery is paced."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from factorychain_bridge.integration import Change, Integration, IntegrationState

UNINITIALIZED, INITIALIZING, ACTIVE, DEGRADED, FAILED = IntegrationState


def machine(attempts: int = 3) -> Integration:
    return Integration(attempts=attempts, delay_s=1.0, now_s=lambda: 100.0)


def degraded() -> Integration:
    found = machine()
    found.begin()
    found.works("everything answers")
    found.lost("NATS is away")
    return found


def test_it_begins_uninitialized_and_becomes_active_when_everything_answers() -> None:
    found = machine()
    states = [found.state]
    found.begin()
    states.append(found.state)
    assert states == [UNINITIALIZED, INITIALIZING]
    found.works("everything answers")
    assert found.active
    assert found.next_delay_s is None


def test_what_is_away_at_the_start_is_recovered_like_an_outage() -> None:
    found = machine()
    found.begin()
    found.lost("NATS is away")
    assert found.state is DEGRADED
    assert found.next_delay_s == 1.0


def test_recovery_is_tried_after_1_2_and_4_seconds_and_then_it_has_failed() -> None:
    found = degraded()
    delays = []
    while found.state is DEGRADED:
        delays.append(found.next_delay_s)
        found.attempt_failed("still away")
    assert delays == [1.0, 2.0, 4.0]
    assert found.state is FAILED
    assert found.attempts == 3
    assert "still away" in found.cause


def test_a_failed_integration_is_tried_on_at_the_last_delay_and_comes_back() -> None:
    found = degraded()
    for _ in range(5):
        found.attempt_failed("still away")
    assert found.next_delay_s == 4.0
    found.works("it is back")
    assert found.active
    assert found.attempts == 0


def test_every_outage_has_all_its_attempts() -> None:
    found = degraded()
    found.attempt_failed("away")
    found.works("back")
    found.lost("away again")
    assert found.next_delay_s == 1.0
    found.attempt_failed("away")
    found.attempt_failed("away")
    assert found.state is DEGRADED


def test_without_attempts_an_outage_fails_at_once() -> None:
    found = machine(attempts=0)
    found.begin()
    found.lost("away")
    found.attempt_failed("away")
    assert found.state is FAILED


def test_listeners_hear_each_change_with_its_cause_and_nothing_else() -> None:
    found = machine()
    heard: list[Change] = []
    found.on_change(heard.append)
    found.begin()
    found.works("all there")
    found.works("still there")
    found.lost("gone")
    found.lost("gone, said twice")
    found.works("back")
    assert heard == [
        Change(UNINITIALIZED, INITIALIZING, "starting"),
        Change(INITIALIZING, ACTIVE, "all there"),
        Change(ACTIVE, DEGRADED, "gone"),
        Change(DEGRADED, ACTIVE, "back"),
    ]
    assert found.transitions == len(heard)


LEGAL = {
    (UNINITIALIZED, INITIALIZING),
    (INITIALIZING, ACTIVE),
    (INITIALIZING, DEGRADED),
    (ACTIVE, DEGRADED),
    (DEGRADED, ACTIVE),
    (DEGRADED, FAILED),
    (FAILED, ACTIVE),
}


@given(st.lists(st.sampled_from(["works", "lost", "attempt_failed"])))
def test_whatever_happens_only_legal_changes_are_made(happenings: list[str]) -> None:
    found = machine()
    changes: list[Change] = []
    found.on_change(changes.append)
    found.begin()
    for each in happenings:
        getattr(found, each)("cause")
        assert found.attempts <= 3
    assert {(change.before, change.after) for change in changes} <= LEGAL
