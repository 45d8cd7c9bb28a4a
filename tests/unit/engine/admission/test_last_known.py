"""What is known of a user's record that storage may have lost."""

from __future__ import annotations

from dataclasses import replace

from factorychain_engine.admission.last_known import LastKnown
from factorychain_engine.admission.queueing import as_queued
from factorychain_engine.admission.record import Totals, UserRecord
from tests.unit.engine.admission.test_reentry import place

EMPTY = UserRecord("acme", "ada")
ACTIVE = place("r1", "t1")
WAITS = as_queued(place("w1", "t2"), "kept")
WAITS_TOO = as_queued(place("w2", "t3"), "kept")


def known(*records: UserRecord) -> LastKnown:
    """One after the other."""
    last = LastKnown.of(records[0])
    for each in records[1:]:
        last = last.then(LastKnown.of(each))
    return last


def test_who_waited_is_known_also_when_the_record_began_anew() -> None:
    before = replace(EMPTY, queue=(WAITS,), queue_owner="me")
    anew = replace(EMPTY, active=(ACTIVE,), queue=(WAITS_TOO,), queue_owner="me")
    assert known(before, EMPTY, anew).waiting_with("me") == (WAITS, WAITS_TOO)


def test_only_those_in_queues_of_the_owner_are_its() -> None:
    before = replace(EMPTY, queue=(WAITS,), queue_owner="other")
    assert known(before).waiting_with("me") == ()
    taken_over = replace(before, queue_owner="me")
    assert known(before, taken_over).waiting_with("me") == (WAITS,)
    assert known(taken_over, before).waiting_with("me") == ()


def test_who_was_known_to_have_begun_does_not_wait() -> None:
    before = replace(EMPTY, queue=(WAITS,), queue_owner="me")
    begun = replace(EMPTY, active=(place("w1", "t2"),))
    assert known(before, begun, EMPTY).waiting_with("me") == ()


def test_who_is_to_end_is_known_as_that() -> None:
    before = replace(EMPTY, queue=(WAITS,), queue_owner="me")
    ending = replace(before, queue=(replace(WAITS, ending="USER"),))
    (last,) = known(before, ending).waiting_with("me")
    assert last.ending == "USER"


def test_a_cancel_is_not_forgotten() -> None:
    cancelled = replace(EMPTY, active=(replace(ACTIVE, cancel="USER"),))
    anew = replace(EMPTY, active=(ACTIVE,))
    assert known(cancelled, anew, EMPTY).cancels == {"r1": "USER"}


def test_what_was_counted_is_never_less() -> None:
    before = replace(EMPTY, totals=Totals(runs=5, requests=9))
    anew = replace(EMPTY, totals=Totals(runs=1, requests=1))
    assert known(before, anew).totals == before.totals
    assert known(anew, before).totals == before.totals
