"""What one run's writer appends, and what it makes of every answer."""

from __future__ import annotations

import pytest

from factorychain._core.execution_context import Scope
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain.types.v1.event_pb2 import Event
from factorychain_bridge.batches import MERGED_MAX_BYTES
from tests.unit.bridge.log_simulation import BATCH_MAX_BYTES, Log, Writer, texts
from tests.unit.bridge.samples import (
    EPOCH,
    OTHER_RUN,
    RUN,
    batch,
    cancelled,
    completed,
    context,
    delta,
    failed,
    queued,
    started,
    thinking,
    thinking_delta,
)


def lifecycle() -> Writer:
    return Writer(Log(), context(scope=Scope.LIFECYCLE))


# --- the plain way -----------------------------------------------------------------------------


def test_a_new_run_appends_without_reading_and_acknowledges_what_is_stored() -> None:
    log = Log()
    writer = Writer(log, context())
    assert writer.said == [("opened", 0)]
    writer.core.add([(1, started()), (2, thinking("hm"))])
    writer.run()
    writer.core.add([(3, completed())])
    writer.run()
    assert writer.said[1:] == [("acknowledged", 2, False), ("acknowledged", 3, True)]
    first, second = log.batches()
    assert (first.first_seq, first.epoch, first.first_run_seq, first.last_run_seq) == (
        1,
        EPOCH,
        1,
        2,
    )
    assert (first.tenant, first.user, first.thread, first.run) == ("default", "ana", "t1", RUN)
    assert (second.first_seq, second.ends, first.ends) == (3, True, False)
    assert writer.core.over
    assert writer.core.ended


def test_numbering_goes_on_from_the_position_in_the_token() -> None:
    log = Log()
    base = log.write(batch(1, "a", "b", run=OTHER_RUN, ends=True))
    writer = Writer(log, context(base=base, base_seq=2))
    writer.core.add([(1, started())])
    writer.run()
    assert log.batches()[-1].first_seq == 3
    log.check()


def test_one_append_is_in_flight_at_a_time() -> None:
    writer = Writer(Log(), context())
    writer.core.add([(1, started())])
    assert writer.core.next_step() is not None
    writer.core.add([(2, thinking("more"))])
    assert writer.core.next_step() is None


def test_a_batch_is_filled_up_to_its_limit_and_never_over_it() -> None:
    log = Log()
    writer = Writer(log, context())
    writer.core.add([(n, thinking("x" * 1000)) for n in range(1, 9)])
    writer.run()
    assert [len(each.events) for each in log.batches()] == [3, 3, 2]
    log.check()


def test_seq_and_run_of_the_sender_are_not_stored() -> None:
    log = Log()
    event = Event.FromString(thinking("x"))
    event.seq, event.run = 77, "somebody else's"
    writer = Writer(log, context())
    writer.core.add([(1, event.SerializeToString())])
    writer.run()
    stored = log.events(RUN)[0]
    assert (stored.seq, stored.run, stored.agent_thinking.text) == (0, "", "x")


# --- merging -----------------------------------------------------------------------------------


def test_neighbouring_deltas_of_one_message_are_stored_as_one_event() -> None:
    log = Log()
    writer = Writer(log, context())
    writer.core.add(
        [(1, delta("Hel")), (2, delta("lo")), (3, delta("!", "m2")), (4, thinking_delta("?", "m2"))]
    )
    writer.run()
    assert texts(log.events(RUN)) == [
        ("message_delta/m1", "Hello"),
        ("message_delta/m2", "!"),
        ("thinking_delta/m2", "?"),
    ]
    assert len(log.events(RUN)) == 3
    assert log.batches()[0].last_run_seq == 4


def test_nothing_but_deltas_is_merged() -> None:
    log = Log()
    writer = Writer(log, context())
    writer.core.add([(1, delta("a")), (2, thinking("b")), (3, delta("c")), (4, thinking("d"))])
    writer.run()
    assert len(log.events(RUN)) == 4


def test_deltas_of_different_sub_agents_are_not_merged() -> None:
    log = Log()
    one, other = Event.FromString(delta("a")), Event.FromString(delta("b"))
    other.path.append("sub")
    writer = Writer(log, context())
    writer.core.add([(1, one.SerializeToString()), (2, other.SerializeToString())])
    writer.run()
    assert len(log.events(RUN)) == 2


def test_deltas_are_not_merged_into_one_that_was_stored_before() -> None:
    log = Log()
    writer = Writer(log, context())
    writer.core.add([(1, delta("a"))])
    writer.run()
    writer.core.add([(2, delta("b"))])
    writer.run()
    assert [event.message_delta.text for event in log.events(RUN)] == ["a", "b"]


def test_a_merged_delta_stays_below_the_size_of_an_event() -> None:
    log = Log()
    writer = Writer(log, context(), batch_max_bytes=512 * 1024)
    writer.core.add([(n, delta("é" * 8000)) for n in range(1, 9)])
    writer.run()
    assert [event.ByteSize() <= MERGED_MAX_BYTES for event in log.events(RUN)] == [True] * 4
    assert texts(log.events(RUN)) == [("message_delta/m1", "é" * 64_000)]


def test_after_a_lost_answer_a_merged_batch_is_recognised_and_not_stored_again() -> None:
    log = Log()
    writer = Writer(log, context())
    writer.core.add([(1, delta("a")), (2, delta("b"))])
    writer.step("unanswered")
    writer.core.add([(3, delta("c"))])
    writer.run()
    assert texts(log.events(RUN)) == [("message_delta/m1", "abc")]
    assert writer.acknowledged == 3


# --- answers that are not success --------------------------------------------------------------


def test_an_append_whose_answer_was_lost_is_not_repeated() -> None:
    log = Log()
    writer = Writer(log, context())
    writer.core.add([(1, started()), (2, completed())])
    writer.step("unanswered")
    assert writer.said == [("opened", 0)]
    writer.run()
    assert writer.said[1:] == [("acknowledged", 2, True)]
    assert len(log.messages) == 1


def test_an_append_that_was_lost_is_repeated() -> None:
    log = Log()
    writer = Writer(log, context())
    writer.core.add([(1, started())])
    writer.step("lost")
    writer.run()
    assert writer.acknowledged == 1
    assert len(log.messages) == 1


def test_an_append_that_arrives_after_its_repetition_is_refused_by_the_server() -> None:
    log = Log()
    writer = Writer(log, context())
    writer.core.add([(1, started())])
    writer.step("late")
    writer.run()
    log.settle()
    assert len(log.messages) == 1


def test_an_append_that_arrives_between_the_read_and_its_repetition_is_recognised() -> None:
    log = Log()
    writer = Writer(log, context())
    writer.core.add([(1, started())])
    writer.step("late")
    writer.step()  # reads: it is not there yet
    writer.core.add([(2, thinking("meanwhile"))])
    log.settle()
    writer.run()
    assert texts(log.events(RUN)) == [("agent_started", ""), ("agent_thinking", "meanwhile")]
    assert writer.acknowledged == 2


def test_somebody_elses_append_in_between_only_costs_a_read() -> None:
    log = Log()
    writer = Writer(log, context())
    log.write(batch(1, "theirs", run=OTHER_RUN))
    writer.core.add([(1, started())])
    writer.run()
    assert [each.run for each in log.batches()] == [OTHER_RUN, RUN]
    log.check()


# --- fencing -----------------------------------------------------------------------------------


def test_a_run_that_was_settled_meanwhile_is_refused() -> None:
    log = Log()
    writer = Writer(log, context())
    writer.core.add([(1, started())])
    writer.run()
    settling = Writer(log, context(scope=Scope.LIFECYCLE))
    settling.core.add([(0, failed())])
    settling.run()
    assert settling.said[-1] == ("acknowledged", 0, True)
    log.write(batch(1, "the next run", run=OTHER_RUN))
    writer.core.add([(2, thinking("I am still here")), (3, completed())])
    writer.run()
    assert writer.said[-1] == ("refused", "RUN_ENDED", False)
    log.check()


def test_an_attempt_that_was_superseded_is_refused() -> None:
    log = Log()
    first = Writer(log, context())
    first.core.add([(1, started())])
    first.run()
    second = Writer(log, context(attempt=2, base=log.last_stream_seq, base_seq=1))
    second.core.add([(1, started())])
    second.run()
    first.core.add([(2, thinking("late"))])
    first.run()
    assert first.said[-1] == ("refused", "ATTEMPT_SUPERSEDED", False)
    assert [each.attempt for each in log.batches()] == [1, 2]


def test_a_later_attempt_is_not_disturbed_by_what_an_earlier_one_has_stored() -> None:
    log = Log()
    first = Writer(log, context())
    first.core.add([(1, started()), (2, thinking("one"))])
    first.run()
    second = Writer(log, context(attempt=2), resumed=True)
    second.run()
    assert second.said == [("opened", 0)]
    second.core.add([(1, started()), (2, completed())])
    second.run()
    assert second.acknowledged == 2


def test_an_ended_run_is_not_settled_again() -> None:
    log = Log()
    writer = Writer(log, context())
    writer.core.add([(1, started()), (2, completed())])
    writer.run()
    settling = Writer(log, context(scope=Scope.LIFECYCLE))
    settling.core.add([(0, failed())])
    settling.run()
    assert settling.said[-1] == ("refused", "RUN_ENDED", False)
    assert len(log.messages) == 1


def test_settling_an_attempt_does_not_end_the_next_one() -> None:
    log = Log()
    second = Writer(log, context(attempt=2))
    second.core.add([(1, started())])
    second.run()
    settling = Writer(log, context(scope=Scope.LIFECYCLE, attempt=1))
    settling.core.add([(0, failed())])
    settling.run()
    assert settling.said[-1] == ("refused", "ATTEMPT_SUPERSEDED", False)


def test_two_settle_at_once_and_one_ending_is_stored() -> None:
    log = Log()
    one = Writer(log, context(scope=Scope.LIFECYCLE))
    other = Writer(log, context(scope=Scope.LIFECYCLE))
    one.core.add([(0, failed())])
    other.core.add([(0, cancelled())])
    one.run()
    other.run()
    assert one.said[-1] == ("acknowledged", 0, True)
    assert other.said[-1] == ("refused", "RUN_ENDED", False)


# --- opening again -----------------------------------------------------------------------------


def test_a_resumed_run_is_opened_where_the_log_stands() -> None:
    log = Log()
    first = Writer(log, context())
    first.core.add([(1, started()), (2, thinking("a"))])
    first.run()
    again = Writer(log, context(), resumed=True)
    assert again.said == []
    again.run()
    assert again.said == [("opened", 2)]
    again.core.add([(2, thinking("a")), (3, completed())])
    again.run()
    assert texts(log.events(RUN)) == [
        ("agent_started", ""),
        ("agent_thinking", "a"),
        ("agent_completed", ""),
    ]


def test_a_resumed_run_whose_own_ending_is_stored_hears_that_it_has_ended() -> None:
    log = Log()
    first = Writer(log, context())
    first.core.add([(1, started()), (2, completed())])
    first.step("unanswered")
    again = Writer(log, context(), resumed=True)
    again.run()
    assert again.said == [("opened", 2), ("acknowledged", 2, True)]


def test_a_resumed_run_that_was_settled_is_refused() -> None:
    log = Log()
    settling = Writer(log, context(scope=Scope.LIFECYCLE))
    settling.core.add([(0, failed())])
    settling.run()
    again = Writer(log, context(), resumed=True)
    again.run()
    assert again.said == [("refused", "RUN_ENDED", False)]


def test_an_opening_whose_pieces_cannot_be_told_from_those_of_another_is_refused_and_may_come_again() -> (
    None
):
    log = Log()
    old = Writer(log, context())
    old.core.add([(2, delta("ab"))])  # holds what the next opening sends as 1 and 2
    new = Writer(log, context())
    new.core.add([(1, delta("a"))])
    new.run()
    old.run()
    assert old.said[-1] == ("refused", "WRITER_SUPERSEDED", True)
    new.core.add([(2, delta("b"))])
    new.run()
    assert texts(log.events(RUN)) == [("message_delta/m1", "ab")]


def test_a_piece_that_another_opening_has_stored_half_of_is_not_stored_again() -> None:
    log = Log()
    old, new = Writer(log, context()), Writer(log, context())
    old.core.add([(1, delta("a")), (3, delta("b")), (3, delta("c"))])
    new.core.add([(2, delta("a")), (2, delta("b"))])
    new.run()
    old.run()
    assert texts(log.events(RUN)) == [("message_delta/m1", "ab")]
    assert old.said[-1] == ("refused", "WRITER_SUPERSEDED", True)


def test_two_openings_that_cut_alike_store_each_event_once() -> None:
    log = Log()
    old, new = Writer(log, context()), Writer(log, context())
    for writer in (old, new):
        writer.core.add([(1, started()), (2, thinking("a"))])
    old.run()
    new.run()
    assert len(log.events(RUN)) == 2
    assert new.acknowledged == 2


def test_a_lifecycle_event_that_was_stored_before_is_not_stored_again() -> None:
    log = Log()
    first = Writer(log, context(scope=Scope.LIFECYCLE))
    first.core.add([(0, queued(2))])
    first.step("unanswered")
    again = Writer(log, context(scope=Scope.LIFECYCLE), resumed=True)
    again.run()
    again.core.add([(0, queued(2)), (0, queued(1))])
    again.run()
    assert [event.run_queued.position for event in log.events(RUN)] == [2, 1]
    assert again.said[-1] == ("acknowledged", 0, False)


def test_a_run_that_has_begun_does_not_wait_any_more() -> None:
    log = Log()
    late = Writer(log, context(scope=Scope.LIFECYCLE))
    agents = Writer(log, context())
    agents.core.add([(1, started())])
    agents.run()
    late.core.add([(0, queued(1))])
    late.run()
    assert late.said[-1] == ("acknowledged", 0, False)
    resumed = Writer(log, context(scope=Scope.LIFECYCLE), resumed=True)
    resumed.run()
    resumed.core.add([(0, queued(1))])
    resumed.run()
    assert resumed.said[-1] == ("acknowledged", 0, False)
    assert [event.WhichOneof("event") for event in log.events(RUN)] == ["agent_started"]


def test_a_position_is_not_stored_after_a_better_one() -> None:
    log = Log()
    slow, fast = (Writer(log, context(scope=Scope.LIFECYCLE)) for _ in range(2))
    fast.core.add([(0, queued(1))])
    fast.run()
    slow.core.add([(0, queued(3)), (0, failed())])
    slow.run()
    kinds = [event.WhichOneof("event") for event in log.events(RUN)]
    assert kinds == ["run_queued", "agent_failed"]
    assert slow.said[-1] == ("acknowledged", 0, True)


def test_a_lifecycle_append_whose_answer_was_lost_is_recognised() -> None:
    log = Log()
    writer = Writer(log, context(scope=Scope.LIFECYCLE))
    writer.core.add([(0, failed())])
    writer.step("unanswered")
    writer.run()
    assert writer.said[-1] == ("acknowledged", 0, True)
    assert len(log.messages) == 1


def test_lifecycle_events_are_acknowledged_only_together() -> None:
    # They all have run_seq 0, so that one acknowledgement covers whatever was sent.
    log = Log()
    writer = Writer(log, context(scope=Scope.LIFECYCLE))
    writer.core.add([(0, queued(1))])
    step = writer.core.next_step()
    assert step is not None
    writer.core.add([(0, queued(2))])
    writer.core.on_appended(log.append(0, getattr(step, "payload", b"")) or 0)
    assert writer.said == [("opened", 0)]
    writer.run()
    assert writer.said[-1] == ("acknowledged", 0, False)


# --- an empty log ------------------------------------------------------------------------------


def test_numbering_starts_anew_when_everything_has_aged_out() -> None:
    log = Log(next_stream_seq=500)
    writer = Writer(log, context(base=17, base_seq=9))
    writer.core.add([(1, started())])
    writer.run()
    only = log.batches()[0]
    assert (only.first_seq, only.epoch) == (1, EPOCH + 1)


def test_the_epoch_of_an_empty_thread_is_the_one_in_the_token() -> None:
    log = Log()
    writer = Writer(log, context(base_epoch=EPOCH - 5))
    writer.core.add([(1, started())])
    writer.step("lost")
    writer.run()
    assert log.batches()[0].epoch == EPOCH - 5


def test_a_resumed_run_whose_thread_was_lost_numbers_it_anew() -> None:
    log = Log()
    writer = Writer(log, context(), resumed=True)  # the first of its thread
    writer.run()
    writer.core.add([(3, thinking("c"))])  # what came before is acknowledged
    writer.run()
    only = log.batches()[0]
    assert (only.first_seq, only.epoch) == (1, EPOCH + 1)
    assert writer.core.durable_run_seq == 3


def test_a_resumed_run_of_which_nothing_was_stored_keeps_its_epoch() -> None:
    log = Log()
    writer = Writer(log, context(), resumed=True)
    writer.run()
    writer.core.add([(1, started())])
    writer.run()
    assert log.batches()[0].epoch == EPOCH


# --- what the log does not take ----------------------------------------------------------------


def test_a_piece_of_several_events_is_stored_in_one_batch_or_not_at_all() -> None:
    log = Log()
    writer = Writer(log, context())
    writer.core.add(
        [(1, thinking("x" * 1500)), (2, thinking("y" * 1500)), (2, thinking("z" * 1000))]
    )
    writer.run()
    assert [[e.agent_thinking.text[0] for e in each.events] for each in log.batches()] == [
        ["x"],
        ["y", "z"],
    ]


@pytest.mark.parametrize(
    ("run_seq", "event", "reason"),
    [
        (2, b"\xff\xff", "EVENT_UNREADABLE"),
        (2, Event().SerializeToString(), "EVENT_UNREADABLE"),
        (2, thinking("x" * BATCH_MAX_BYTES), "EVENT_TOO_LARGE"),
        (2, queued(), "NOT_ALLOWED"),
        (0, failed(), "NOT_ALLOWED"),
    ],
)
def test_an_event_that_cannot_be_stored_is_rejected_and_the_run_goes_on(
    run_seq: int, event: bytes, reason: str
) -> None:
    log = Log()
    writer = Writer(log, context())
    writer.core.add([(1, started()), (run_seq, event), (3, thinking("on"))])
    writer.run()
    assert ("rejected", run_seq, reason) in writer.said
    assert writer.acknowledged == 3
    assert [event for event, _ in texts(log.events(RUN))] == ["agent_started", "agent_thinking"]


def test_a_rejected_event_is_acknowledged_after_those_before_it_are_stored() -> None:
    writer = Writer(Log(), context())
    writer.core.add([(1, started()), (2, b"\xff")])
    assert writer.said == [("opened", 0), ("rejected", 2, "EVENT_UNREADABLE")]
    writer.run()
    assert writer.said[-1] == ("acknowledged", 2, False)


@pytest.mark.parametrize("event", [started(), thinking("x"), completed(), delta("x")])
def test_a_lifecycle_token_says_nothing_for_agents(event: bytes) -> None:
    writer = lifecycle()
    writer.core.add([(0, event)])
    writer.run()
    assert ("rejected", 0, "NOT_ALLOWED") in writer.said
    assert writer.log.messages == []


def test_nothing_follows_an_ending() -> None:
    log = Log()
    writer = Writer(log, context())
    writer.core.add([(1, completed()), (2, thinking("more"))])
    writer.run()
    assert ("rejected", 2, "AFTER_ENDING") in writer.said
    assert writer.core.ended
    log.check()


def test_a_closed_writer_keeps_and_does_nothing() -> None:
    log = Log()
    writer = Writer(log, context())
    writer.core.add([(1, started())])
    step = writer.core.next_step()
    assert step is not None
    writer.core.close()
    writer.core.on_appended(1)
    writer.core.add([(2, thinking("x"))])
    assert writer.core.pending == 0
    assert writer.core.next_step() is None
    assert writer.said == [("opened", 0)]


def test_a_batch_reads_back_as_what_was_put_in() -> None:
    log = Log()
    writer = Writer(log, context())
    sizes = [0, 1, 127, 128, 200, 1000]
    writer.core.add([(n, thinking("x" * size)) for n, size in enumerate(sizes, 1)])
    writer.run()
    found = LogBatch()
    found.ParseFromString(log.messages[0][1])
    assert [len(event.agent_thinking.text) for event in found.events] == sizes
