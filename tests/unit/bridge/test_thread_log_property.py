"""However answers are lost, appends delayed and writers replaced: each event once, in order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from factorychain._core.execution_context import Scope
from factorychain.types.v1.event_pb2 import Event
from tests.unit.bridge.log_simulation import Log, Writer, texts
from tests.unit.bridge.samples import (
    OTHER_RUN,
    RUN,
    batch,
    completed,
    context,
    delta,
    failed,
    started,
    thinking,
)

FATES = st.sampled_from(["stored", "stored", "unanswered", "lost", "late"])
KINDS = st.sampled_from(["delta", "delta", "other message", "thinking", "large"])


class WritersMachine(RuleBasedStateMachine):
    """One run whose sender keeps what is not acknowledged, and opens it again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.sender: list[tuple[int, bytes]] = [(1, started())]  # everything, in order
        self.writer = Writer(self.log, context())
        self.leftovers: list[Writer] = []
        self.handed = 0  # how many events the present writer was given
        self.settler: Writer | None = None
        self.ended = False

    # --- the sender ---

    @precondition(lambda self: not self.ended)
    @rule(kind=KINDS)
    def say(self, kind: str) -> None:
        number = len(self.sender) + 1
        events = {
            "delta": delta(f"[{number}]"),
            "other message": delta(f"[{number}]", "m2"),
            "thinking": thinking(str(number)),
            "large": thinking(str(number) + "x" * 1500),
        }
        self.sender.append((number, events[kind]))

    @precondition(lambda self: not self.ended)
    @rule()
    def end(self) -> None:
        self.ended = True
        self.sender.append((len(self.sender) + 1, completed()))

    @rule(count=st.integers(1, 4), as_one=st.booleans())
    def hand_over(self, count: int, as_one: bool) -> None:
        """Several events may be one piece, which is cut elsewhere by another opening."""
        if "opened" not in {each[0] for each in self.writer.said} or self.writer.core.over:
            return
        durable = self.writer.core.durable_run_seq
        self.handed = max(self.handed, durable)
        events = self.sender[self.handed : self.handed + count]
        self.handed += len(events)
        if as_one and events:
            events = [(events[-1][0], data) for _, data in events]
        self.writer.core.add(events)

    @rule()
    def open_again(self) -> None:
        """On another stream, while what the old one has in flight may still arrive."""
        self.leftovers.append(self.writer)
        self.writer = Writer(self.log, context(), resumed=True)
        self.handed = 0

    # --- the writers and the server ---

    @rule(fate=FATES)
    def step(self, fate: str) -> None:
        self.writer.step(fate)

    @precondition(lambda self: self.leftovers)
    @rule(fate=FATES, data=st.data())
    def leftover_steps(self, fate: str, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.leftovers)).step(fate)

    @rule()
    def arrive(self) -> None:
        self.log.settle()

    @precondition(lambda self: self.log.messages and not self.log.batches()[-1].ends)
    @rule()
    def somebody_else_writes(self) -> None:
        self.log.write(batch(1, "theirs", run=OTHER_RUN))

    @rule(fate=FATES)
    def settle_the_run(self, fate: str) -> None:
        if self.settler is None:
            self.settler = Writer(self.log, context(scope=Scope.LIFECYCLE))
            self.settler.core.add([(0, failed())])
        self.settler.step(fate)

    # --- what always holds ---

    @invariant()
    def the_log_holds_a_prefix_of_what_was_said(self) -> None:
        self.log.check()
        stored = texts(self.log.events(RUN))
        if stored and stored[-1][0] == "agent_failed":
            stored.pop()
        said = texts([Event.FromString(data) for _, data in self.sender])
        assert _is_prefix(stored, said), (stored, said)

    @invariant()
    def what_is_acknowledged_is_stored(self) -> None:
        durable = max(
            (each.last_run_seq for each in self.log.batches() if each.run == RUN), default=0
        )
        for writer in (self.writer, *self.leftovers):
            assert writer.acknowledged <= durable
            if ("acknowledged", writer.acknowledged, True) in writer.said:
                assert any(each.ends for each in self.log.batches())

    def teardown(self) -> None:
        """Left alone, the last opening brings everything into the log, unless the run was settled."""
        self.log.settle()
        if self.settler is not None:
            self.settler.run()
        self.open_again()
        self.writer.run()
        self.hand_over(len(self.sender), as_one=False)
        self.writer.run()
        stored = texts(self.log.events(RUN))
        if "agent_failed" in dict(stored):
            assert self.writer.said[-1] == ("refused", "RUN_ENDED", False)
        else:
            assert stored == texts([Event.FromString(data) for _, data in self.sender])
        self.the_log_holds_a_prefix_of_what_was_said()


def _is_prefix(stored: list[tuple[str, str]], said: list[tuple[str, str]]) -> bool:
    """Also if the last stored message is still growing."""
    if not stored:
        return True
    *before, (kind, text) = stored
    following = said[len(before) : len(stored)]
    if said[: len(before)] != before or not following:
        return False
    return following[0][0] == kind and following[0][1].startswith(text)


TestWriters = WritersMachine.TestCase
TestWriters.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
