"""Whatever breaks and whenever, nothing is lost, doubled or reordered, and windows hold."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from factorychain._core.link.frames import INITIAL_WINDOW_BYTES, event_cost
from factorychain._core.link.refusal import Refusal
from tests.unit._core.link.simulation import FarChannel, Link, write

SIZES = st.sampled_from([0, 1, 500, 20_000, INITIAL_WINDOW_BYTES, 200_000])
NAMES = st.sampled_from(["a", "b", "c"])


class LinkMachine(RuleBasedStateMachine):
    """A link whose every step, and every break, happens at a time of Hypothesis's choosing."""

    replay = False

    def __init__(self) -> None:
        super().__init__()
        self.link = Link(replay=self.replay)
        self.left_over: list[FarChannel] = []

    @rule(name=NAMES, size=SIZES, count=st.integers(1, 5))
    def offer(self, name: str, size: int, count: int) -> None:
        run = self.link.runs.get(name) or self.link.open(name)
        for _ in range(count):
            if run.sender.has_room:
                mark = f"{name}{len(run.offered) + 1}:".encode()
                self.link.offer(run, mark + b"x" * size)

    @rule()
    def send(self) -> None:
        self.link.send()

    @rule()
    def arrive(self) -> None:
        self.link.arrive()

    @rule()
    def answer(self) -> None:
        self.link.answer()

    @rule(count=st.integers(1, 4))
    def persist(self, count: int) -> None:
        self.link.persist(count)

    @rule()
    def reply(self) -> None:
        self.link.reply()

    @rule()
    def hear(self) -> None:
        self.link.hear()

    @rule()
    def break_stream(self) -> None:
        self.left_over += self.link.break_stream()

    @precondition(lambda self: self.left_over)
    @rule(count=st.integers(1, 4))
    def write_late(self, count: int) -> None:
        """What had reached the far side before a break becomes durable after it."""
        far = self.left_over.pop()
        # The writer drops what came in the meantime, but never writes with a hole before.
        while far.waiting and far.waiting[0][0] <= far.run.durable:
            far.waiting.popleft()
        write(far, count)

    @precondition(lambda self: self.link.openings)
    @rule()
    def cannot_take(self) -> None:
        """The far side refuses an opening for now."""
        opening = self.link.openings.popleft()
        self.link.receiver.refuse(opening.channel, Refusal("CHAIN_DEGRADED", "later", True))

    @rule(name=NAMES)
    def resume(self, name: str) -> None:
        run = self.link.runs.get(name)
        if run is not None and run.sender.is_paused:
            self.link.sender.resume(run.sender)

    @invariant()
    def log_is_a_prefix_of_what_was_offered(self) -> None:
        for run in self.link.runs.values():
            assert run.log == run.offered[: len(run.log)]

    @invariant()
    def nothing_is_forgotten_before_it_is_durable(self) -> None:
        for run in self.link.runs.values():
            assert run.sender.durable_run_seq <= run.durable
            assert run.observed.acknowledged_to <= run.durable

    @invariant()
    def windows_hold(self) -> None:
        for far in self.link.channels.values():
            waiting = [event for run_seq, event in far.waiting if run_seq > far.run.durable]
            cost = sum(map(event_cost, waiting))
            assert cost <= INITIAL_WINDOW_BYTES or len(waiting) == 1

    def teardown(self) -> None:
        """When the breaks are over, everything arrives."""
        self.link.sender.disconnected()
        self.link.stream()
        self.link.settle()
        for run in self.link.runs.values():
            assert run.log == run.offered
            assert run.sender.empty
            assert run.sender.buffered_bytes == 0
            assert not run.observed.refusals


class ReplayingLinkMachine(LinkMachine):
    """The same towards a receiver that sees events again to know their order."""

    replay = True


LinkMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
ReplayingLinkMachine.TestCase.settings = LinkMachine.TestCase.settings

TestLink = LinkMachine.TestCase
TestReplayingLink = ReplayingLinkMachine.TestCase
