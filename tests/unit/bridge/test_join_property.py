"""However live messages are lost, doubled or overtaken, and history read and aged out: a client has
exactly what follows its position, or was told that it cannot and has everything that there is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from factorychain_bridge.items import CaughtUp, Events, FeedItem, Reset, Stored
from factorychain_bridge.join import Join, LogEnd, Read, Stage
from tests.unit.bridge.samples import EPOCH, THREAD, batch, stored

BUFFER_BYTES = 400  # a few batches


class Thread:
    """A thread's log as the server has it, and the live messages on their way to one replica."""

    def __init__(self) -> None:
        self.kept: list[Stored] = []
        self.live: deque[Stored] = deque()
        self.epoch, self.seq, self.stream_seq = EPOCH, 0, 0

    def append(self, size: int, copies: int) -> None:
        numbers = range(self.seq + 1, self.seq + size + 1)
        texts = [text(self.epoch, number) for number in numbers]
        previous = self.kept[-1].stream_seq if self.kept else None
        self.stream_seq += 3  # other threads are in the same stream
        found = stored(self.stream_seq, batch(self.seq + 1, *texts, epoch=self.epoch), previous)
        self.seq = found.last_seq
        self.kept.append(found)
        self.live.extend([found] * copies)

    def age_out(self, count: int) -> None:
        del self.kept[:count]
        if not self.kept:  # whoever writes next finds nothing, and numbers from 1
            self.epoch, self.seq = self.epoch + 1, 0

    def end(self) -> LogEnd | None:
        if not self.kept:
            return None
        return LogEnd(self.kept[0].batch.first_seq, self.stream_seq, self.seq, self.epoch)

    def holds(self, seq: int, epoch: int) -> bool:
        """Whether everything after a position is still there, and the position was reached."""
        if not self.kept or epoch not in (0, self.epoch):
            return False
        return self.kept[0].batch.first_seq - 1 <= seq <= self.seq


def text(epoch: int, seq: int) -> str:
    return f"{epoch}/{seq}"


class Client:
    """Has everything up to `seq` of `epoch`; keeps what it is given, and checks that it may be given it."""

    def __init__(self, thread: Thread, seq: int, epoch: int) -> None:
        self.thread = thread
        self.seq, self.epoch = seq, epoch
        self.anywhere = False  # a reset came: what there is follows, wherever that starts
        self.located = 0  # the numbering in which its position was looked up, if it named none
        self.held = True  # whether the log held its position when it was asked

    def take(self, items: Iterable[FeedItem]) -> None:
        for item in items:
            if isinstance(item, Events):
                self.events(item)
            elif isinstance(item, Reset):
                self.reset(item)
            elif self.anywhere:
                self.seq, self.anywhere = item.seq, False
            else:
                assert item.seq == self.seq

    def events(self, item: Events) -> None:
        if self.anywhere:
            skipped = [
                each
                for each in self.thread.kept
                if each.batch.epoch == item.epoch and each.batch.first_seq < item.first_seq
            ]
            assert not skipped, f"a reset must be followed by {skipped[0].whole}, not by {item}"
            assert item.skip == 0
        else:
            assert item.first_seq == self.seq + 1, f"a gap or a repeat: {item} after {self.seq}"
        assert self.epoch in (0, item.epoch), f"another numbering without a reset: {item}"
        numbers = range(item.first_seq, item.last_seq + 1)
        said = [event.agent_thinking.text for event in item.events()]
        assert said == [text(item.epoch, number) for number in numbers]
        self.seq, self.epoch, self.anywhere = item.last_seq, item.epoch, False

    def reset(self, item: Reset) -> None:
        needless = self.held and self.thread.holds(self.seq, self.epoch or self.located)
        assert self.anywhere or not needless, f"everything after {self.seq} is there: {item}"
        self.seq, self.epoch, self.anywhere = 0, item.epoch, True


class JoinMachine(RuleBasedStateMachine):
    """One client that comes, goes and comes again, on a thread that grows and ages out."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = Thread()
        self.client = Client(self.thread, 0, 0)
        self.join = Join(THREAD, BUFFER_BYTES)
        self.located: tuple[LogEnd | None] | None = None  # the leader's answer to who subscribes
        self.polled: LogEnd | None = None
        self.told: LogEnd | None = None  # by the last poll that was answered
        self.read: Read | None = None  # in hand
        self.read_upto = 0
        self.due = 0  # how often it is to be told that it has caught up
        self.waits_for: set[int] = set()  # numberings of what it was told before it was to begin

    # --- the thread ---

    @rule(size=st.integers(1, 4), copies=st.sampled_from([1, 0, 2]))
    def append(self, size: int, copies: int) -> None:
        """Republished, but the live message may be lost, or come twice."""
        self.thread.append(size, copies)

    @precondition(lambda self: self.thread.kept)
    @rule(count=st.sampled_from([1, 2, 99]))
    def age_out(self, count: int) -> None:
        self.thread.age_out(count)

    @rule(copies=st.integers(0, 1))
    def number_anew(self, copies: int) -> None:
        """Everything ages out, and the live message of what begins anew may be lost."""
        self.thread.age_out(len(self.thread.kept))
        self.thread.append(1, copies)
        self.thread.append(1, 1)

    # --- the client ---

    @rule()
    def resume(self) -> None:
        """Its connection broke: it goes on from what it has."""
        self.subscribe(self.client.seq, self.client.epoch)

    @rule(back=st.integers(-1, 6), epochs=st.sampled_from([0, 0, 1, None]))
    def come(self, back: int, epochs: int | None) -> None:
        """Somebody with any position, also one that never was, of this numbering, the last or any."""
        epoch = 0 if epochs is None else self.thread.epoch - epochs
        self.subscribe(max(0, self.thread.seq - back), epoch)

    def subscribe(self, seq: int, epoch: int) -> None:
        self.client = Client(self.thread, seq, epoch)
        self.join = Join(THREAD, BUFFER_BYTES)
        self.located = self.polled = self.told = self.read = None
        self.due = 0
        self.waits_for = set()

    @precondition(lambda self: self.join.stage is Stage.WAITING)
    @rule()
    def locate(self) -> None:
        """What the leader says; live messages and ageing may overtake its answer."""
        self.located = (self.thread.end(),)
        self.client.held = self.thread.holds(self.client.seq, self.client.epoch)

    @precondition(lambda self: self.located and self.join.stage is Stage.WAITING)
    @rule()
    def start(self) -> None:
        assert self.located is not None
        self.due = 1
        self.client.located = self.located[0].epoch if self.located[0] else 0
        self.take(self.join.start(self.client.seq, self.client.epoch, self.located[0]))

    @precondition(
        lambda self: (
            self.join.stage is Stage.WAITING
            and self.waits_for | {each.batch.epoch for each in self.thread.live}
            <= {self.thread.epoch}
        )
    )
    @rule(back=st.integers(0, 3))
    def start_here(self, back: int) -> None:
        """A run was started; a start that is repeated names a place where the thread stood once.

        Live messages of an older numbering are not on their way any more: ageing takes days.
        """
        after = max(0, self.thread.seq - back)
        self.client = Client(self.thread, after, self.thread.epoch)
        self.take(self.join.start_here(after, self.thread.epoch))

    @precondition(lambda self: self.join.stage is Stage.WAITING)
    @rule()
    def start_at_once(self) -> None:
        self.locate()
        self.start()

    # --- what arrives ---

    @precondition(lambda self: self.thread.live)
    @rule(count=st.integers(1, 3))
    def hear(self, count: int) -> None:
        for _ in range(min(count, len(self.thread.live))):
            if self.join.stage is Stage.WAITING:
                self.waits_for.add(self.thread.live[0].batch.epoch)
            self.take(self.join.on_live(self.thread.live.popleft()))

    @rule()
    def poll(self) -> None:
        self.polled = self.thread.end()

    @precondition(lambda self: self.polled)
    @rule()
    def poll_is_answered(self) -> None:
        assert self.polled is not None
        if self.join.stage is not Stage.WAITING:
            self.told = self.polled
        self.join.on_end(self.polled)

    @precondition(lambda self: self.thread.kept)
    @rule(lost=st.integers(0, 1))
    def poll_at_once(self, lost: int) -> None:
        if lost:
            self.thread.append(1, 0)
        self.poll()
        self.poll_is_answered()

    @precondition(lambda self: self.join.read)
    @rule(size=st.integers(1, 3))
    def read_page(self, size: int) -> None:
        """A page may hold more than was asked for, and what it holds may age out before the next."""
        if self.read is None:
            self.read = self.join.read
            self.read_upto = self.read.after if self.read else 0
        assert self.read is not None
        page = [each for each in self.thread.kept if each.stream_seq > self.read_upto][:size]
        for each in page:
            self.take(self.join.on_history(each))
        self.read_upto = page[-1].stream_seq if page else self.read.upto
        if self.read_upto >= self.read.upto:
            self.read = None
            self.take(self.join.on_read_done())

    def take(self, items: list[FeedItem]) -> None:
        self.due -= sum(isinstance(each, CaughtUp) for each in items)
        assert self.due >= 0, "it was told twice, or not as a subscriber, that it has caught up"
        self.client.take(items)

    def position(self) -> tuple[int, int]:
        """Who did not say of which numbering, and has been given nothing, has it from the join."""
        return self.client.epoch or self.join.epoch, self.client.seq

    # --- what always holds ---

    @invariant()
    def what_is_kept_is_bounded(self) -> None:
        assert self.join.buffered_bytes <= BUFFER_BYTES

    @invariant()
    def nothing_waits_but_for_a_read(self) -> None:
        live = self.join.stage is Stage.LIVE
        assert (self.join.read is not None) == (self.join.stage is Stage.READING)
        assert not (live and (self.join.buffered_bytes or self.due))

    @invariant()
    def what_a_poll_found_is_read_before_it_is_live(self) -> None:
        told = self.told
        if told is None or self.join.stage is not Stage.LIVE:
            return
        has_it = self.position() >= (told.epoch, told.seq)
        assert has_it or not any(each.stream_seq == told.stream_seq for each in self.thread.kept)

    @invariant()
    def it_never_has_more_than_was_said(self) -> None:
        if self.join.stage is Stage.LIVE and self.client.epoch == self.thread.epoch:
            assert self.client.seq <= self.thread.seq

    def teardown(self) -> None:
        """What is on its way is lost; polls and reads alone bring everything that there is."""
        if self.join.stage is Stage.WAITING:
            self.locate()
            self.start()
        for _ in range(2):
            while self.join.read is not None:
                self.read_page(2)
            self.poll()
            if self.polled is not None:
                self.poll_is_answered()
        assert self.join.stage is Stage.LIVE
        if self.thread.kept:
            assert self.position() == (self.thread.epoch, self.thread.seq)


TestJoin = JoinMachine.TestCase
TestJoin.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
