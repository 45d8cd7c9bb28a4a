"""A link between cores: two wires, a log on the far side, and a stream that can break anywhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from factorychain._core.link.frames import INITIAL_WINDOW_BYTES, event_cost
from factorychain._core.link.receiver import Closing, Delivery, LinkReceiver, Opening
from factorychain._core.link.refusal import Refusal
from factorychain._core.link.run_sender import RunSender
from factorychain._core.link.sender import LinkSender
from factorychain.types.v1.link_pb2 import RunFrame, RunReceipt


@dataclass
class Observed:
    """What the owner of a run hears."""

    acknowledged_to: int = 0
    ended: bool = False
    rejections: list[int] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    pauses: list[Refusal] = field(default_factory=list)

    def opened(self, durable_run_seq: int) -> None:
        self.acknowledged_to = max(self.acknowledged_to, durable_run_seq)

    def acknowledged(self, durable_run_seq: int, ended: bool) -> None:
        self.acknowledged_to = max(self.acknowledged_to, durable_run_seq)
        self.ended = self.ended or ended

    def rejected(self, run_seq: int, reason: str, message: str) -> None:
        self.rejections.append(run_seq)

    def refused(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)

    def paused(self, refusal: Refusal) -> None:
        self.pauses.append(refusal)


@dataclass
class Run:
    """One run: what was offered, and what the far side has in its log."""

    name: str
    observed: Observed = field(default_factory=Observed)
    offered: list[tuple[int, bytes]] = field(default_factory=list)
    log: list[tuple[int, bytes]] = field(default_factory=list)
    open_calls: list[str] = field(default_factory=list)
    sender: RunSender = field(init=False)

    def __post_init__(self) -> None:
        self.sender = RunSender(self.name, self.observed)

    @property
    def durable(self) -> int:
        return self.log[-1][0] if self.log else 0

    def append(self, run_seq: int, event: bytes) -> None:
        """What the writer of the log does: it drops what is there already."""
        if run_seq > self.durable:
            assert run_seq == self.durable + 1, "the receiver got events out of order"
            self.log.append((run_seq, event))


@dataclass
class FarChannel:
    """One channel at the receiver: events that came and are not durable yet."""

    run: Run
    waiting: deque[tuple[int, bytes]] = field(default_factory=deque)
    in_flight_bytes: int = 0


class Link:
    """Sender, wires and receiver. A break replaces the receiver and loses what is on the wires."""

    def __init__(self, *, window_bytes: int = INITIAL_WINDOW_BYTES, replay: bool = False) -> None:
        self.window_bytes = window_bytes
        self.sender = LinkSender(replay=replay)
        self.runs: dict[str, Run] = {}
        self.stream()

    def stream(self) -> None:
        """A new stream."""
        self.receiver = LinkReceiver(window_bytes=self.window_bytes)
        self.forth: deque[Sequence[RunFrame]] = deque()
        self.back: deque[Sequence[RunReceipt]] = deque()
        self.openings: deque[Opening] = deque()
        self.channels: dict[int, FarChannel] = {}
        self.sender.connected()

    def break_stream(self) -> list[FarChannel]:
        """Returns what the far side had received: it may still become durable later."""
        left = list(self.channels.values())
        self.sender.disconnected()
        self.stream()
        return left

    # --- near side --------------------------------------------------------------------------

    def open(self, name: str) -> Run:
        run = self.runs[name] = Run(name)
        self.sender.add(run.sender)
        return run

    def offer(self, run: Run, event: bytes, **calls: str) -> None:
        run_seq = len(run.offered) + 1
        run.offered.append((run_seq, event))
        run.sender.offer(run_seq, [event], **calls)
        self.sender.touch(run.sender)

    def send(self) -> None:
        frames = self.sender.take()
        if frames:
            self.forth.append(frames)

    def hear(self) -> None:
        if self.back:
            for receipt in self.back.popleft():
                self.sender.receive(receipt)

    # --- far side ---------------------------------------------------------------------------

    def arrive(self) -> None:
        if not self.forth:
            return
        for frame in self.forth.popleft():
            step = self.receiver.receive(frame)
            if isinstance(step, Opening):
                self.openings.append(step)
            elif isinstance(step, Delivery):
                self._deliver(step.channel, step.events)
            elif isinstance(step, Closing):
                assert step.refusal is None, step.refusal
                self.channels.pop(step.channel, None)

    def _deliver(self, channel: int, events: Sequence[tuple[int, bytes]]) -> None:
        far = self.channels[channel]
        for run_seq, event in events:
            if run_seq > far.run.durable:
                far.in_flight_bytes += event_cost(event)
            far.waiting.append((run_seq, event))

    def answer(self) -> None:
        """Answers the oldest opening from the log."""
        if not self.openings:
            return
        opening = self.openings.popleft()
        run = self.runs[opening.request.token]
        run.open_calls = list(opening.request.open_calls)
        assert opening.request.resumed or not run.log, "a run that has a log is resumed"
        self.channels[opening.channel] = FarChannel(run)
        self._deliver(opening.channel, self.receiver.opened(opening.channel, run.durable))

    def persist(self, count: int = 1_000_000) -> None:
        """Makes up to so many waiting events of every channel durable, and acknowledges."""
        for number, far in self.channels.items():
            write(far, count)
            if far.run.log:
                self.receiver.acknowledge(number, far.run.durable)

    def reply(self) -> None:
        receipts = self.receiver.take()
        if receipts:
            self.back.append(receipts)

    def settle(self, rounds: int = 2_000) -> None:
        """Lets everything flow until nothing moves."""
        for _ in range(rounds):
            self.send()
            self.arrive()
            self.answer()
            self.persist()
            self.reply()
            self.hear()
            moving = self.forth or self.back or self.openings
            if not moving and self.sender.idle and self.receiver.idle:
                return
        raise AssertionError("the link does not come to rest")


def write(far: FarChannel, count: int) -> None:
    """What a writer does with the events that wait for it."""
    for _ in range(min(count, len(far.waiting))):
        run_seq, event = far.waiting.popleft()
        far.run.append(run_seq, event)
        far.in_flight_bytes -= min(far.in_flight_bytes, event_cost(event))
