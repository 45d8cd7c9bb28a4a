"""What becomes of a user's record that storage has lost."""

from __future__ import annotations

from dataclasses import replace

from factorychain_engine.admission.last_known import LastKnown
from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.queueing import as_queued
from factorychain_engine.admission.record import ActiveRun, Totals, UserRecord
from factorychain_engine.admission.reentry import Reentered, reenter

EMPTY = UserRecord("acme", "ada")


def place(run: str, thread: str, at_s: float = 1.0) -> ActiveRun:
    return ActiveRun(
        run=run,
        thread=thread,
        agent="a",
        request_hash="00" * 16,
        owner="gone",
        admitted_at_s=at_s,
        deadline_s=at_s + 300,
        base=7,
        base_seq=3,
        base_epoch=5,
        agents_address="agents:1",
        agents_boot="b",
    )


def waiting(run: str, thread: str, at_s: float) -> QueuedRun:
    return as_queued(place(run, thread, at_s), "kept")


def entered(
    record: UserRecord,
    *places: ActiveRun,
    queue: tuple[QueuedRun, ...] = (),
    last: UserRecord | None = None,
) -> Reentered:
    known = LastKnown.of(last) if last is not None else None
    return reenter(record, known, places, queue, "me")


def test_runs_have_their_places_again_with_all_that_they_had() -> None:
    first, second = place("r1", "t1"), place("r2", "t2")
    made = entered(EMPTY, first, second)
    assert made.record.active == (replace(first, owner="me"), replace(second, owner="me"))
    assert (made.active, made.queued, made.displaced) == (("r1", "r2"), (), ())


def test_doing_it_twice_changes_nothing() -> None:
    queue = (waiting("w", "t3", 9.0),)
    once = entered(EMPTY, place("r1", "t1"), queue=queue).record
    again = entered(once, place("r1", "t1"), queue=queue)
    assert again.record == once
    assert (again.active, again.queued, again.displaced) == ((), (), ())


def test_what_another_engine_has_entered_stays_its_own() -> None:
    stored = replace(EMPTY, active=(replace(place("r1", "t1"), owner="other"),))
    assert entered(stored, place("r1", "t1")).record == stored


def test_who_is_to_end_is_to_end_also_if_its_engine_has_not_heard() -> None:
    known, other = replace(place("r1", "t1"), cancel="USER"), place("r2", "t2")
    last = replace(EMPTY, active=(replace(other, cancel="INTERRUPTED"),))
    made = entered(EMPTY, known, other, last=last)
    assert [each.cancel for each in made.record.active] == ["USER", "INTERRUPTED"]


def test_a_run_whose_thread_another_has_by_now_is_displaced() -> None:
    stored = replace(EMPTY, active=(place("new", "t1"),))
    made = entered(stored, place("r1", "t1"), place("r2", "t2"))
    assert [each.run for each in made.record.active] == ["new", "r2"]
    assert (made.active, made.displaced) == (("r2",), ("r1",))


def test_those_who_wait_stand_in_the_order_in_which_they_came() -> None:
    stored = replace(EMPTY, queue=(waiting("w2", "t2", 20.0),), queue_owner="other")
    queue = (waiting("w1", "t1", 10.0), waiting("w3", "t3", 30.0))
    made = entered(stored, queue=queue)
    assert [each.run for each in made.record.queue] == ["w1", "w2", "w3"]
    assert (made.record.queue_owner, made.queued) == ("me", ("w1", "w3"))


def test_who_has_begun_meanwhile_does_not_wait_any_more() -> None:
    begun = replace(EMPTY, active=(place("w1", "t1"),))
    assert entered(begun, queue=(waiting("w1", "t1", 1.0),)).record == begun
    queued = replace(EMPTY, queue=(waiting("w1", "t1", 1.0),), queue_owner="other")
    made = entered(queued, place("w1", "t1"))
    assert ([each.run for each in made.record.active], made.record.queue) == (["w1"], ())


def test_nobody_elses_queue_is_taken() -> None:
    stored = replace(EMPTY, queue=(waiting("w1", "t1", 1.0),), queue_owner="other")
    assert entered(stored).record == stored


def test_what_was_counted_is_never_less() -> None:
    last = replace(EMPTY, totals=Totals(runs=5, input_tokens=50))
    assert entered(EMPTY, last=last).record.totals == last.totals
    more = replace(EMPTY, totals=Totals(runs=6, input_tokens=60))
    assert entered(more, last=last).record.totals == more.totals
