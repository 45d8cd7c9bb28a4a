"""Each attempt once."""

from __future__ import annotations

from factorychain_agents.accepted import AcceptedRuns


def test_an_attempt_is_accepted_once_and_a_later_one_again() -> None:
    accepted = AcceptedRuns()
    assert accepted.add("r1", 1, expires_at_s=100, now_s=0)
    assert not accepted.add("r1", 1, expires_at_s=100, now_s=1)
    assert accepted.add("r1", 2, expires_at_s=100, now_s=2)
    assert not accepted.add("r1", 1, expires_at_s=100, now_s=3)


def test_it_is_forgotten_when_its_token_is_worth_nothing_any_more() -> None:
    accepted = AcceptedRuns()
    for number in range(50):
        assert accepted.add(f"r{number}", 1, expires_at_s=100 + number, now_s=0)
    assert not accepted.add("r0", 1, expires_at_s=200, now_s=100)
    assert accepted.add("other", 1, expires_at_s=300, now_s=200)
    assert len(accepted) == 1


def test_a_later_attempt_is_kept_when_the_earlier_ones_token_expires() -> None:
    accepted = AcceptedRuns()
    assert accepted.add("r1", 1, expires_at_s=10, now_s=0)
    assert accepted.add("r1", 2, expires_at_s=50, now_s=5)
    assert not accepted.add("r1", 2, expires_at_s=50, now_s=20)


def test_an_attempt_is_kept_for_as_long_as_its_later_token() -> None:
    accepted = AcceptedRuns()
    assert accepted.add("r1", 1, expires_at_s=10, now_s=0)
    accepted.keep("r1", 1, expires_at_s=50)
    accepted.keep("other", 1, expires_at_s=50)
    assert not accepted.add("r1", 1, expires_at_s=50, now_s=20)
    assert accepted.add("other", 1, expires_at_s=100, now_s=20)
    assert accepted.add("last", 1, expires_at_s=100, now_s=60)
    assert len(accepted) == 2
