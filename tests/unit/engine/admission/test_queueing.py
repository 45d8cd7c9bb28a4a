"""The queue in a user's record; what is not here is in `test_admission`."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.queueing import (
    QueueFull,
    as_place,
    drop,
    enqueue,
    leave,
    mark,
    moved,
    overdue,
    overdue_at_s,
    promote,
)
from factorychain_engine.admission.record import ActiveRun, UserRecord, adopt, startable
from factorychain_engine.records import user_json

EMPTY = UserRecord("acme", "ada")


def queued(run: str, thread: str = "", at_s: float = 1.0) -> QueuedRun:
    return QueuedRun(
        run=run,
        thread=thread or f"t-{run}",
        agent="researcher",
        request_hash="0" * 32,
        kept=f"k-{run}",
        queued_at_s=at_s,
        base=3,
        base_seq=2,
        base_epoch=1,
    )


def place(run: str, thread: str = "") -> ActiveRun:
    return replace(as_place(queued(run, thread)), owner="e1", admitted_at_s=9.0)


def waiting(*runs: QueuedRun, active: tuple[ActiveRun, ...] = ()) -> UserRecord:
    return replace(EMPTY, queue=runs, queue_owner="e1", active=active)


def able(record: UserRecord, limit: int = 2) -> list[str]:
    return [each.run for each in startable(record, lambda _: limit)]


def test_the_first_of_each_thread_starts_and_a_busy_thread_holds_up_no_other() -> None:
    record = waiting(queued("r1", "a"), queued("r2", "b"), queued("r3", "b"), queued("r4", "c"))
    assert able(record) == ["r1", "r2"]
    assert able(record, 9) == ["r1", "r2", "r4"]
    assert able(replace(record, active=(place("r0", "a"),))) == ["r2"]
    assert promote(record, place("r3", "b"), lambda _: 9) is None
    assert promote(record, place("r4", "c"), lambda _: 2) is None, "it is not its turn"


def test_one_over_its_own_limit_is_passed() -> None:
    record = waiting(queued("r1"), queued("r2"), active=(place("r0"),))
    limits = {"r1": 1, "r2": 2}

    def limit_of(each: QueuedRun) -> int:
        return limits[each.run]

    assert [each.run for each in startable(record, limit_of)] == ["r2"]
    promoted = promote(record, place("r2"), limit_of)
    assert promoted is not None
    assert [each.run for each in promoted.queue] == ["r1"]


def test_a_full_queue_takes_nobody() -> None:
    assert enqueue(waiting(queued("r1")), queued("r2"), "e1", 1) == QueueFull()


def test_positions_count_those_that_are_to_start() -> None:
    record = waiting(queued("r1"), queued("r2"), queued("r3"))
    assert [record.position(run) for run in ("r1", "r2", "r3", "r4")] == [1, 2, 3, 0]
    marked = mark(record, ["r2"], "USER", "e2", "no more")
    assert [marked.position(run) for run in ("r1", "r2", "r3")] == [1, 0, 2]
    assert moved(record, marked) == ["r3"]
    assert marked.queue_owner == "e2"


def test_the_first_reason_stays_and_only_who_is_marked_is_dropped() -> None:
    record = mark(waiting(queued("r1"), queued("r2")), ["r1"], "USER", "e1")
    assert mark(record, ["r1"], "QUEUE_TIMEOUT", "e2") is record
    assert drop(record, "r2") is record
    assert [each.run for each in drop(record, "r1").queue] == ["r2"]


def test_who_has_waited_for_too_long_is_named_once() -> None:
    record = waiting(queued("r1", at_s=1.0), queued("r2", at_s=50.0))
    assert overdue(record, 100.0, 60.0) == ["r1"]
    assert overdue_at_s(record, 60.0) == 61.0
    marked = mark(record, ["r1"], "QUEUE_TIMEOUT", "e1")
    assert overdue(marked, 100.0, 60.0) == []
    assert overdue_at_s(marked, 60.0) == 110.0
    assert overdue_at_s(EMPTY, 60.0) > 1e300


def test_the_queue_of_an_engine_that_is_gone_or_has_left_is_adopted() -> None:
    record = waiting(queued("r1"))
    assert adopt(record, {"e1"}, "e2").queue_owner == "e2"
    assert adopt(leave(record, "e1"), {""}, "e2").queue_owner == "e2"
    assert leave(record, "e2") is record
    assert adopt(EMPTY, {""}, "e2") is EMPTY


def test_a_record_with_a_queue_is_stored_whole_and_unknown_to_engines_without() -> None:
    record = waiting(replace(queued("r1"), ending="USER"), active=(place("r0"),))
    stored = user_json.encode(record)
    assert user_json.decode(stored) == record
    assert orjson.loads(stored)["version"] == 2
    assert orjson.loads(user_json.encode(replace(record, queue=())))["version"] == 1


@pytest.mark.parametrize("field", ["run", "thread", "kept"])
def test_a_queued_run_that_cannot_be_read_is_no_empty_queue(field: str) -> None:
    stored = orjson.loads(user_json.encode(waiting(queued("r1"))))
    del stored["queue"][0][field]
    with pytest.raises(user_json.ForeignRecord):
        user_json.decode(orjson.dumps(stored))
