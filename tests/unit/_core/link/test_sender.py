"""The sending end of a link, rule by rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorychain._core.link.frames import (
    ENTRY_MAX_BYTES,
    INITIAL_WINDOW_BYTES,
    MESSAGE_BYTES,
    event_cost,
)
from factorychain._core.link.refusal import Refusal
from factorychain.types.v1.link_pb2 import (
    RunAcknowledged,
    RunOpened,
    RunReceipt,
    RunRefused,
    RunRejected,
)
from tests.unit._core.link.simulation import Link, Run


def events_of(link: Link, run: Run) -> list[int]:
    """The run_seq of the run's events that the next message carries."""
    return [
        event.run_seq
        for frame in link.sender.take()
        if frame.channel == run.sender.channel
        for event in frame.events.events
    ]


def tell(link: Link, channel: int, **receipt: object) -> None:
    link.sender.receive(RunReceipt(channel=channel, **receipt))  # type: ignore[arg-type]


def test_a_fresh_run_sends_its_events_right_behind_its_opening() -> None:
    link = Link()
    run = link.open("a")
    link.offer(run, b"1")
    opening, events = link.sender.take()
    assert opening.open.token == "a"
    assert not opening.open.resumed
    assert [each.event for each in events.events.events] == [b"1"]


def test_after_a_break_nothing_is_sent_before_the_receiver_says_what_is_durable() -> None:
    link = Link()
    run = link.open("a")
    for text in (b"1", b"2", b"3"):
        link.offer(run, text)
    link.sender.take()
    link.break_stream()
    (opening,) = link.sender.take()
    assert opening.open.resumed
    assert link.sender.take() == []
    tell(link, opening.channel, opened=RunOpened(durable_run_seq=2))
    assert events_of(link, run) == [3]


def test_what_is_in_flight_stays_within_the_window_that_was_named() -> None:
    link = Link()
    run = link.open("a")
    size = 40_000
    for _ in range(3):
        link.offer(run, b"x" * size)
    assert events_of(link, run) == [1]  # two would not fit the first window
    tell(link, run.sender.channel, opened=RunOpened(window_bytes=200_000))
    assert events_of(link, run) == [2, 3]


def test_an_event_larger_than_the_window_travels_alone() -> None:
    link = Link()
    run = link.open("a")
    link.offer(run, b"x" * (INITIAL_WINDOW_BYTES * 3))
    link.offer(run, b"y")
    assert events_of(link, run) == [1]
    assert events_of(link, run) == []
    tell(link, run.sender.channel, acknowledged=RunAcknowledged(durable_run_seq=1))
    assert events_of(link, run) == [2]


def test_a_small_run_has_its_turn_in_the_first_message_beside_a_flood() -> None:
    link = Link(window_bytes=4 << 20)
    flood = link.open("flood")
    link.settle()
    for _ in range(300):
        link.offer(flood, b"x" * 10_000)
    small = link.open("small")
    link.offer(small, b"hello")
    message = link.sender.take()
    assert any(
        frame.channel == small.sender.channel and frame.HasField("events") for frame in message
    )
    carried = sum(event_cost(event.event) for frame in message for event in frame.events.events)
    assert carried < MESSAGE_BYTES + 20_000


def test_a_run_that_is_never_acknowledged_does_not_stop_another() -> None:
    link = Link()
    stuck, lively = link.open("stuck"), link.open("lively")
    for _ in range(200):
        link.offer(stuck, b"x" * 1_000)
    link.sender.take()
    for run_seq in range(1, 50):
        link.offer(lively, b"y" * 1_000)
        assert events_of(link, lively) == [run_seq]
        tell(link, lively.sender.channel, acknowledged=RunAcknowledged(durable_run_seq=run_seq))
    assert stuck.sender.durable_run_seq == 0


def test_calls_that_are_open_at_the_durable_position_are_named_when_resuming() -> None:
    link = Link()
    run = link.open("a")
    link.offer(run, b"1", opens_call="c1")
    link.offer(run, b"2", opens_call="c2")
    link.offer(run, b"3", closes_call="c1")
    channel_frames = link.sender.take()
    tell(link, channel_frames[0].channel, acknowledged=RunAcknowledged(durable_run_seq=2))
    link.break_stream()
    (opening,) = link.sender.take()
    assert (opening.open.durable_run_seq, list(opening.open.open_calls)) == (2, ["c1", "c2"])


def test_a_receiver_that_judges_order_sees_what_became_durable_unknown_to_the_sender() -> None:
    link = Link(replay=True)
    run = link.open("a")
    for text in (b"1", b"2", b"3"):
        link.offer(run, text)
    link.sender.take()
    link.break_stream()
    (opening,) = link.sender.take()
    tell(link, opening.channel, opened=RunOpened(durable_run_seq=2))
    assert run.sender.durable_run_seq == 2
    assert events_of(link, run) == [1, 2, 3]


def test_events_offered_in_one_piece_share_a_number_and_a_message() -> None:
    link = Link()
    run = link.open("a")
    run.sender.offer(1, [b"closing a call", b"the ending"])
    link.sender.touch(run.sender)
    frames = link.sender.take()
    assert [(e.run_seq, e.event) for e in frames[1].events.events] == [
        (1, b"closing a call"),
        (1, b"the ending"),
    ]


@pytest.mark.parametrize("bad", [3, 2, 0])
def test_a_run_seq_that_does_not_follow_is_a_mistake_of_the_caller(bad: int) -> None:
    link = Link()
    run = link.open("a")
    run.sender.offer(3, [b""])
    with pytest.raises(ValueError, match="does not follow"):
        run.sender.offer(bad, [b""])


def test_lifecycle_events_are_acknowledged_without_a_number() -> None:
    link = Link()
    run = link.open("a")
    run.sender.offer(0, [b"queued"])
    run.sender.offer(0, [b"failed"])
    link.sender.touch(run.sender)
    link.sender.take()
    tell(link, run.sender.channel, acknowledged=RunAcknowledged(ended=True))
    assert run.sender.empty
    assert run.sender.ended


def test_a_lifecycle_event_survives_a_reconnect_of_a_run_with_durable_events() -> None:
    link = Link()
    run = link.open("a")
    run.sender.offer(0, [b"failed"])
    link.sender.touch(run.sender)
    link.sender.take()
    link.break_stream()
    (opening,) = link.sender.take()
    tell(link, opening.channel, opened=RunOpened(durable_run_seq=17))
    assert events_of(link, run) == [0]


def test_a_rejection_is_told_once_over_any_number_of_streams() -> None:
    link = Link()
    run = link.open("a")
    link.offer(run, b"1")
    for _ in range(3):
        link.sender.take()
        rejected = RunRejected(run_seq=1, reason="BAD", message="")
        tell(link, run.sender.channel, rejected=rejected)
        link.break_stream()
        link.sender.take()
        tell(link, run.sender.channel, opened=RunOpened())
    assert run.observed.rejections == [1]


def test_a_refusal_for_good_ends_the_run_and_frees_what_it_held() -> None:
    link = Link()
    run = link.open("a")
    link.offer(run, b"1")
    link.sender.take()
    tell(link, run.sender.channel, refused=RunRefused(reason="RUN_ENDED", message="m"))
    assert run.observed.refusals == [Refusal("RUN_ENDED", "m")]
    assert run.sender.buffered_bytes == 0
    link.offer(run, b"2")
    assert link.sender.take() == []


def test_a_refusal_for_now_keeps_everything_and_opens_again_as_resumed() -> None:
    link = Link()
    run = link.open("a")
    link.offer(run, b"1")
    link.sender.take()
    tell(link, run.sender.channel, refused=RunRefused(reason="CHAIN_DEGRADED", retryable=True))
    assert run.observed.pauses
    assert link.sender.take() == []
    link.sender.resume(run.sender)
    (opening,) = link.sender.take()
    assert opening.open.resumed
    tell(link, opening.channel, opened=RunOpened())
    assert events_of(link, run) == [1]


def test_a_closed_run_says_so_once_and_hears_nothing_more() -> None:
    link = Link()
    run = link.open("a")
    link.offer(run, b"1")
    link.sender.take()
    channel = run.sender.channel
    link.sender.close(run.sender)
    (frame,) = link.sender.take()
    assert (frame.channel, frame.WhichOneof("frame")) == (channel, "close")
    tell(link, channel, rejected=RunRejected(run_seq=1))
    assert run.observed.rejections == []
    assert len(link.sender) == 0
    assert link.sender.take() == []


def test_what_no_message_can_carry_ends_its_own_run_and_no_other() -> None:
    link = Link()
    poisoned, other = link.open("a"), link.open("b")
    link.offer(poisoned, b"1")
    link.settle()
    link.offer(poisoned, b"x" * ENTRY_MAX_BYTES)
    link.offer(poisoned, b"2")
    link.offer(other, b"1")
    link.settle()
    assert [each.reason for each in poisoned.observed.refusals] == ["EVENT_TOO_LARGE"]
    assert poisoned.log == poisoned.offered[:1]
    assert other.log == other.offered
    link.sender.close(poisoned.sender)
    assert [each.WhichOneof("frame") for each in link.sender.take()] == ["close"]


def test_a_run_closed_before_it_was_opened_leaves_no_trace() -> None:
    link = Link()
    run = link.open("a")
    link.sender.close(run.sender)
    assert link.sender.take() == []


@given(st.lists(st.integers(0, 30_000), min_size=1, max_size=60))
def test_the_buffer_is_empty_again_when_everything_is_durable(sizes: list[int]) -> None:
    link = Link(window_bytes=1 << 20)
    run = link.open("a")
    for size in sizes:
        link.offer(run, b"x" * size)
    link.settle()
    assert run.log == run.offered
    assert run.sender.buffered_bytes == 0


def test_nothing_is_said_about_a_run_whose_ending_is_acknowledged() -> None:
    link = Link()
    run = link.open("a")
    link.offer(run, b"end")
    link.sender.take()
    tell(link, run.sender.channel, acknowledged=RunAcknowledged(durable_run_seq=1, ended=True))
    link.sender.close(run.sender)
    assert link.sender.take() == []
    assert len(link.sender) == 0
