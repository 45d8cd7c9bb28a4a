"""The receiving end of a link, without I/O: one object a stream.

Invariants: what a channel holds is bounded by its window, and one that goes beyond is refused alone;
a channel number is used once; receipts of a channel keep their order, and only the latest
acknowledgement of a channel waits to be sent, however slowly the sender reads. The acknowledgement
of a run's ending closes its channel: nothing can follow it, so nobody has to say goodbye.

Most answers may wait a little for company, since nobody waits for them; those that somebody does wait
for are `urgent`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from factorychain._core.link.frames import INITIAL_WINDOW_BYTES, event_cost, fits
from factorychain._core.link.refusal import Refusal
from factorychain.types.v1.link_pb2 import (
    RunAcknowledged,
    RunFrame,
    RunOpen,
    RunOpened,
    RunReceipt,
    RunRefused,
    RunRejected,
)

Events = list[tuple[int, bytes]]
"""Events with their run_seq, in order."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A sender wants to open a run; answer with `opened` or `refuse`."""

    channel: int
    request: RunOpen


@dataclass(frozen=True, slots=True)
class Delivery:
    """Events of an open channel."""

    channel: int
    events: Events


@dataclass(frozen=True, slots=True)
class Renewal:
    """The channel's run has another token."""

    channel: int
    token: str


@dataclass(frozen=True, slots=True)
class Closing:
    """The channel is over: the sender closed it, or it broke a rule (and was refused)."""

    channel: int
    refusal: Refusal | None = None


Step = Opening | Delivery | Renewal | Closing


_SAY_AFTER_BYTES: Final = INITIAL_WINDOW_BYTES // 4
"""What may be acknowledged and not yet said to a sender, which could stand at its window."""


@dataclass(slots=True)
class _Channel:
    resumed: bool
    opening: bool = True
    window: int = INITIAL_WINDOW_BYTES
    durable: int = 0  # replayed events up to here cost nothing
    outstanding_bytes: int = 0
    unsaid_bytes: int = 0
    outstanding: deque[tuple[int, int]] = field(default_factory=deque)
    early: Events = field(default_factory=list)  # came before the opening was answered


class LinkReceiver:
    """Turns the frames of one stream into steps, and answers into receipts."""

    def __init__(self, *, window_bytes: int, max_channels: int = 10_000) -> None:
        self._window_bytes = max(window_bytes, INITIAL_WINDOW_BYTES)
        self._max_channels = max_channels
        self._channels: dict[int, _Channel] = {}
        self._highest = 0
        self._receipts: list[RunReceipt] = []
        self._acknowledged: dict[int, RunAcknowledged] = {}
        self.urgent = False
        """Whether the sender may be waiting for what is to be answered."""

    def __len__(self) -> int:
        return len(self._channels)

    def is_open(self, number: int) -> bool:
        return number in self._channels

    # --- what the sender says ---------------------------------------------------------------

    def receive(self, frame: RunFrame) -> Step | None:
        """What one frame asks for. A frame of a channel that is over is late and asks nothing."""
        kind = frame.WhichOneof("frame")
        if kind == "open":
            return self._open(frame.channel, frame.open)
        if frame.channel not in self._channels:
            return None
        if kind == "events":
            return self._events(frame)
        if kind == "renew":
            return Renewal(frame.channel, frame.renew.token)
        if kind == "close":
            return self._drop(frame.channel)
        return None

    def _open(self, number: int, request: RunOpen) -> Step | None:
        if number <= self._highest:
            known = number in self._channels
            self.refuse(number, Refusal("INVALID_FIELD", f"channel {number} was used before"))
            return Closing(number) if known else None
        self._highest = number
        if len(self._channels) >= self._max_channels:
            self.refuse(number, Refusal("CAPACITY", "too many runs on this stream", retryable=True))
            return None
        self._channels[number] = _Channel(request.resumed)
        return Opening(number, request)

    def _events(self, frame: RunFrame) -> Step | None:
        number = frame.channel
        channel = self._channels[number]
        events = [(each.run_seq, each.event) for each in frame.events.events]
        for run_seq, event in events:
            if not self._admit(channel, run_seq, event_cost(event)):
                refusal = Refusal(
                    "WINDOW_EXCEEDED",
                    f"more than {channel.window} bytes were sent without an acknowledgement",
                )
                self.refuse(number, refusal)
                return Closing(number, refusal)
        if channel.opening:
            channel.early += events
            return None
        return Delivery(number, events)

    def _admit(self, channel: _Channel, run_seq: int, cost: int) -> bool:
        if 0 < run_seq <= channel.durable:
            return True
        # Several events of one run_seq are one piece, which is why only its first is measured.
        same = bool(channel.outstanding) and 0 < run_seq == channel.outstanding[-1][0]
        if not same and not fits(cost, channel.outstanding_bytes, channel.window):
            return False
        channel.outstanding.append((run_seq, cost))
        channel.outstanding_bytes += cost
        return True

    def _drop(self, number: int) -> Closing:
        del self._channels[number]
        self._acknowledged.pop(number, None)
        return Closing(number)

    # --- what the receiver says -------------------------------------------------------------

    def opened(self, number: int, durable_run_seq: int) -> Events:
        """Answers an opening; returns the events that came in the meantime."""
        channel = self._channels.get(number)
        if channel is None or not channel.opening:
            return []
        channel.opening = False
        channel.durable = durable_run_seq
        channel.window = self._window_bytes
        receipt = RunOpened(durable_run_seq=durable_run_seq, window_bytes=channel.window)
        self._receipts.append(RunReceipt(channel=number, opened=receipt))
        self.urgent |= channel.resumed  # a new run sends without waiting for it
        early, channel.early = channel.early, []
        return early

    def acknowledge(self, number: int, durable_run_seq: int, ended: bool = False) -> None:
        channel = self._channels.get(number)
        if channel is None:
            return
        outstanding = channel.outstanding
        while outstanding and outstanding[0][0] <= durable_run_seq:
            cost = outstanding.popleft()[1]
            channel.outstanding_bytes -= cost
            channel.unsaid_bytes += cost
        channel.durable = max(channel.durable, durable_run_seq)
        self._acknowledged[number] = RunAcknowledged(durable_run_seq=channel.durable, ended=ended)
        self.urgent |= ended or channel.unsaid_bytes >= _SAY_AFTER_BYTES
        if ended:
            del self._channels[number]

    def reject(self, number: int, run_seq: int, reason: str, message: str) -> None:
        if number in self._channels:
            rejected = RunRejected(run_seq=run_seq, reason=reason, message=message)
            self._receipts.append(RunReceipt(channel=number, rejected=rejected))
            self.urgent = True

    def refuse(self, number: int, refusal: Refusal) -> None:
        """Closes the channel; what was acknowledged before is still said before."""
        waiting = self._acknowledged.pop(number, None)
        if waiting is not None:
            self._receipts.append(RunReceipt(channel=number, acknowledged=waiting))
        self._channels.pop(number, None)
        refused = RunRefused(
            reason=refusal.reason, message=refusal.message, retryable=refusal.retryable
        )
        self._receipts.append(RunReceipt(channel=number, refused=refused))
        self.urgent = True

    @property
    def idle(self) -> bool:
        """Whether there is nothing to answer."""
        return not self._receipts and not self._acknowledged

    def take(self) -> Sequence[RunReceipt]:
        """All receipts that wait, in order within each channel."""
        receipts, self._receipts = self._receipts, []
        receipts += [
            RunReceipt(channel=number, acknowledged=acknowledged)
            for number, acknowledged in self._acknowledged.items()
        ]
        for number in self._acknowledged:
            channel = self._channels.get(number)
            if channel is not None:
                channel.unsaid_bytes = 0
        self._acknowledged.clear()
        self.urgent = False
        return receipts
