"""The receiving end of a link, rule by rule."""

from __future__ import annotations

from factorychain._core.link.frames import INITIAL_WINDOW_BYTES
from factorychain._core.link.receiver import Closing, Delivery, LinkReceiver, Opening, Step
from factorychain._core.link.refusal import Refusal
from factorychain.types.v1.link_pb2 import RunClose, RunEvent, RunEvents, RunFrame, RunOpen


def open_frame(channel: int) -> RunFrame:
    return RunFrame(channel=channel, open=RunOpen(token=f"t{channel}"))


def events_frame(channel: int, *events: tuple[int, bytes]) -> RunFrame:
    carried = [RunEvent(run_seq=run_seq, event=event) for run_seq, event in events]
    return RunFrame(channel=channel, events=RunEvents(events=carried))


def receiver_with(*channels: int, window_bytes: int = INITIAL_WINDOW_BYTES) -> LinkReceiver:
    receiver = LinkReceiver(window_bytes=window_bytes)
    for channel in channels:
        assert isinstance(receiver.receive(open_frame(channel)), Opening)
        receiver.opened(channel, 0)
    receiver.take()
    return receiver


def refused_reason(receiver: LinkReceiver, channel: int) -> str:
    return next(r.refused.reason for r in receiver.take() if r.channel == channel)


def test_events_that_come_before_the_opening_is_answered_wait_for_it() -> None:
    receiver = LinkReceiver(window_bytes=100_000)
    receiver.receive(open_frame(1))
    assert receiver.receive(events_frame(1, (1, b"a"))) is None
    assert receiver.receive(events_frame(1, (2, b"b"))) is None
    assert receiver.opened(1, 0) == [(1, b"a"), (2, b"b")]
    assert receiver.receive(events_frame(1, (3, b"c"))) == Delivery(1, [(3, b"c")])


def test_a_run_beyond_its_window_is_refused_and_its_neighbour_is_not() -> None:
    receiver = receiver_with(1, 2)
    half = b"x" * (INITIAL_WINDOW_BYTES // 2)
    assert isinstance(receiver.receive(events_frame(1, (1, half))), Delivery)
    step = receiver.receive(events_frame(1, (2, half)))
    assert isinstance(step, Closing)
    assert step.refusal is not None
    assert refused_reason(receiver, 1) == "WINDOW_EXCEEDED"
    assert receiver.receive(events_frame(1, (3, b""))) is None
    assert isinstance(receiver.receive(events_frame(2, (1, half))), Delivery)


def test_a_flood_before_the_opening_is_answered_is_bounded_too() -> None:
    receiver = LinkReceiver(window_bytes=10 << 20)
    receiver.receive(open_frame(1))
    steps: list[Step | None] = [
        receiver.receive(events_frame(1, (n, b"x" * 30_000))) for n in range(1, 4)
    ]
    assert isinstance(steps[2], Closing)


def test_a_flood_of_empty_events_is_bounded() -> None:
    receiver = receiver_with(1)
    flood = [(n, b"") for n in range(1, 5_000)]
    assert isinstance(receiver.receive(events_frame(1, *flood)), Closing)


def test_an_acknowledgement_makes_room() -> None:
    receiver = receiver_with(1)
    for n in range(1, 20):
        step = receiver.receive(events_frame(1, (n, b"x" * 50_000)))
        assert isinstance(step, Delivery)
        receiver.acknowledge(1, n)


def test_events_of_one_piece_are_measured_as_one() -> None:
    receiver = receiver_with(1)
    piece = [(1, b"x" * 50_000), (1, b"y" * 50_000)]
    assert isinstance(receiver.receive(events_frame(1, *piece)), Delivery)


def test_replayed_events_take_no_window() -> None:
    receiver = LinkReceiver(window_bytes=INITIAL_WINDOW_BYTES)
    receiver.receive(open_frame(1))
    receiver.opened(1, 9)
    replayed = [(n, b"x" * 20_000) for n in range(1, 10)]
    assert isinstance(receiver.receive(events_frame(1, *replayed, (10, b"new"))), Delivery)


def test_a_channel_number_is_used_once() -> None:
    receiver = receiver_with(1, 2)
    assert receiver.receive(open_frame(1)) == Closing(1)
    assert refused_reason(receiver, 1) == "INVALID_FIELD"
    receiver.receive(RunFrame(channel=2, close=RunClose()))
    assert receiver.receive(open_frame(2)) is None
    assert refused_reason(receiver, 2) == "INVALID_FIELD"
    assert len(receiver) == 0


def test_frames_of_a_channel_that_is_over_ask_for_nothing() -> None:
    receiver = receiver_with(1)
    assert receiver.receive(RunFrame(channel=1, close=RunClose())) == Closing(1)
    assert receiver.receive(RunFrame(channel=1, close=RunClose())) is None
    assert receiver.receive(events_frame(1, (1, b""))) is None
    receiver.acknowledge(1, 1)
    assert receiver.idle


def test_more_channels_than_allowed_are_refused_for_now() -> None:
    receiver = LinkReceiver(window_bytes=1, max_channels=1)
    receiver.receive(open_frame(1))
    assert receiver.receive(open_frame(2)) is None
    (receipt,) = receiver.take()
    assert (receipt.refused.reason, receipt.refused.retryable) == ("CAPACITY", True)


def test_only_the_latest_acknowledgement_waits_to_be_sent() -> None:
    receiver = receiver_with(1)
    for n in range(1, 100):
        receiver.receive(events_frame(1, (n, b"")))
        receiver.acknowledge(1, n)
    (receipt,) = receiver.take()
    assert receipt.acknowledged.durable_run_seq == 99
    assert receiver.idle


def test_that_the_run_has_ended_is_not_forgotten_by_a_later_acknowledgement() -> None:
    receiver = receiver_with(1)
    receiver.acknowledge(1, 5, ended=True)
    receiver.acknowledge(1, 5)
    (receipt,) = receiver.take()
    assert receipt.acknowledged.ended


def test_what_was_acknowledged_is_said_before_a_refusal() -> None:
    receiver = receiver_with(1)
    receiver.acknowledge(1, 5)
    receiver.refuse(1, Refusal("RUN_ENDED", ""))
    kinds = [receipt.WhichOneof("receipt") for receipt in receiver.take()]
    assert kinds == ["acknowledged", "refused"]


def test_the_acknowledged_ending_closes_the_channel() -> None:
    receiver = receiver_with(1)
    receiver.receive(events_frame(1, (1, b"end")))
    receiver.acknowledge(1, 1, ended=True)
    assert not receiver.is_open(1)
    assert receiver.receive(events_frame(1, (2, b"late"))) is None
    assert [receipt.acknowledged.ended for receipt in receiver.take()] == [True]


def test_what_nobody_waits_for_is_not_urgent_and_what_somebody_waits_for_is() -> None:
    receiver = LinkReceiver(window_bytes=1 << 20)
    receiver.receive(open_frame(1))
    receiver.opened(1, 0)
    receiver.receive(events_frame(1, (1, b"small"), (2, b"x" * (INITIAL_WINDOW_BYTES // 4))))
    receiver.acknowledge(1, 1)
    assert (receiver.idle, receiver.urgent) == (False, False)
    receiver.acknowledge(1, 2)  # the sender could stand at its window
    assert (receiver.idle, receiver.urgent) == (False, True)
    assert len(receiver.take()) == 2
    assert (receiver.idle, receiver.urgent) == (True, False)
    receiver.acknowledge(1, 3, ended=True)
    assert (receiver.idle, receiver.urgent) == (False, True)


def test_a_resumed_opening_is_answered_at_once() -> None:
    receiver = LinkReceiver(window_bytes=1)
    receiver.receive(RunFrame(channel=1, open=RunOpen(token="t", resumed=True)))
    receiver.opened(1, 7)
    assert receiver.urgent
