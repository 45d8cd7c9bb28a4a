"""One run at the sending end of a link, without I/O.

Invariants, whatever breaks and whenever: an event leaves the run's buffer only when it was
acknowledged or its run is over; events are sent in the order in which they were offered; after a
broken stream nothing is sent before the receiver has said what is durable; what is in flight never
exceeds the receiver's window, except for one event that is larger than it and travels alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from factorychain._core.link.frames import (
    ENTRY_MAX_BYTES,
    INITIAL_WINDOW_BYTES,
    event_cost,
    fits,
    open_ids,
)
from factorychain._core.link.refusal import Refusal
from factorychain.types.v1.link_pb2 import (
    RunClose,
    RunEvent,
    RunEvents,
    RunFrame,
    RunOpen,
    RunOpened,
    RunRenew,
)


class RunObserver(Protocol):
    """Hears what becomes of a run. Called synchronously; must not block or raise."""

    def opened(self, durable_run_seq: int) -> None: ...

    def acknowledged(self, durable_run_seq: int, ended: bool) -> None: ...

    def rejected(self, run_seq: int, reason: str, message: str) -> None: ...

    def refused(self, refusal: Refusal) -> None:
        """The run is over for this sender."""

    def paused(self, refusal: Refusal) -> None:
        """The receiver cannot take the run now; `LinkSender.resume` has it tried again."""


class Entry(NamedTuple):
    """What was offered in one piece: one event, or several that stand or fall together."""

    run_seq: int
    events: tuple[bytes, ...]
    cost: int
    opens_call: str
    closes_call: str


class RunSender:
    """One run at the sending end."""

    __slots__ = (
        "_awaiting",
        "_in_flight",
        "_last_rejected",
        "_observer",
        "_open_calls",
        "_renewed",
        "_replay",
        "_resumed",
        "_sent",
        "_token",
        "_trace",
        "_unsent",
        "_window",
        "buffered_bytes",
        "channel",
        "closed",
        "durable_run_seq",
        "ended",
        "is_paused",
        "last_run_seq",
        "queued",
        "refusal",
    )

    def __init__(
        self,
        token: str,
        observer: RunObserver,
        *,
        trace: str = "",
        resumed: bool = False,
        durable_run_seq: int = 0,
        open_calls: Iterable[str] = (),
    ) -> None:
        self._token = token
        self._trace = trace
        self._observer = observer
        self._resumed = resumed
        self._open_calls = set(open_calls)
        self._window = INITIAL_WINDOW_BYTES
        self._unsent: deque[Entry] = deque()
        self._sent: deque[Entry] = deque()
        # Durable already, but the receiver has not seen them: it needs them to know the order.
        self._replay: deque[Entry] = deque()
        self._in_flight = 0
        self._awaiting = False
        self._last_rejected = 0
        self._renewed = False  # the receiver has not heard of the token yet
        self.buffered_bytes = 0
        self.durable_run_seq = durable_run_seq
        self.last_run_seq = durable_run_seq
        self.channel = 0  # 0: not open on the present stream
        self.queued = False
        self.is_paused = False
        self.ended = False
        self.closed = False
        self.refusal: Refusal | None = None

    # --- what the owner does ----------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether nothing more is taken or sent."""
        return self.closed or self.ended or self.refusal is not None

    @property
    def has_room(self) -> bool:
        return self.buffered_bytes <= self._window

    @property
    def empty(self) -> bool:
        """Whether everything that was offered is durable."""
        return not self._unsent and not self._sent

    def offer(
        self, run_seq: int, events: Sequence[bytes], opens_call: str = "", closes_call: str = ""
    ) -> None:
        """Queues one event, or several that become durable together or not at all."""
        if run_seq < self.last_run_seq or (run_seq and run_seq == self.last_run_seq):
            raise ValueError(f"run_seq {run_seq} does not follow {self.last_run_seq}")
        if self.over:
            return
        cost = sum(map(event_cost, events))
        if cost > ENTRY_MAX_BYTES:
            self._refuse(Refusal("EVENT_TOO_LARGE", f"{cost} bytes cannot travel in one piece"))
            return
        self.last_run_seq = run_seq
        self.buffered_bytes += cost
        self._unsent.append(Entry(run_seq, tuple(events), cost, opens_call, closes_call))

    def renew(self, token: str) -> None:
        """From now on the run has this token."""
        self._token = token
        self._renewed = self.channel != 0

    # --- what the stream takes --------------------------------------------------------------

    @property
    def sendable(self) -> bool:
        """Whether `frames` would put something on the stream."""
        if self.over:
            return self.closed and self.channel != 0
        if not self.channel:
            return not self.is_paused
        if self._renewed:
            return True
        if self._awaiting:
            return False
        if self._replay:
            return True
        return bool(self._unsent) and fits(self._unsent[0].cost, self._in_flight, self._window)

    def frames(self, new_channel: int, budget: int) -> tuple[list[RunFrame], int]:
        """What is to be sent now, and what it costs. Call it only when `sendable`."""
        if self.closed:
            channel, self.channel = self.channel, 0
            return [RunFrame(channel=channel, close=RunClose())], 0
        frames = []
        cost = 0
        if not self.channel:
            self.channel = new_channel
            frames.append(self._open())
            cost = len(self._token)
        elif self._renewed:
            frames.append(RunFrame(channel=self.channel, renew=RunRenew(token=self._token)))
            cost = len(self._token)
        self._renewed = False
        if not self._awaiting:
            events, spent = self._take_events(budget)
            cost += spent
            if events:
                frames.append(RunFrame(channel=self.channel, events=RunEvents(events=events)))
        return frames, cost

    def _open(self) -> RunFrame:
        calls, requests = open_ids(self._open_calls)
        resumed = self._awaiting = self._resumed
        self._resumed = True  # whatever happens now, events may have been sent on this stream
        return RunFrame(
            channel=self.channel,
            open=RunOpen(
                token=self._token,
                durable_run_seq=self.durable_run_seq,
                resumed=resumed,
                trace=self._trace,
                open_calls=calls,
                open_requests=requests,
            ),
        )

    def _take_events(self, budget: int) -> tuple[list[RunEvent], int]:
        taken: list[RunEvent] = []
        spent = 0
        while spent < budget and self._replay:
            spent += _put(self._replay.popleft(), taken)
        while spent < budget and self._unsent:
            entry = self._unsent[0]
            if not fits(entry.cost, self._in_flight, self._window):
                break
            if spent and spent + entry.cost > budget:
                break
            self._sent.append(self._unsent.popleft())
            self._in_flight += entry.cost
            spent += _put(entry, taken)
        return taken, spent

    # --- what the receiver says -------------------------------------------------------------

    def on_opened(self, opened: RunOpened, replay: bool) -> None:
        if opened.window_bytes:
            self._window = opened.window_bytes
        durable = max(opened.durable_run_seq, self.durable_run_seq)
        self._awaiting = False
        for queue, in_flight in ((self._sent, True), (self._unsent, False)):
            while queue and 0 < queue[0].run_seq <= durable:
                entry = queue.popleft()
                self._settle(entry, in_flight)
                if replay and not in_flight:
                    self._replay.append(entry)
        self.durable_run_seq = durable
        self._observer.opened(durable)

    def on_acknowledged(self, durable_run_seq: int, ended: bool) -> None:
        # Lifecycle events carry run_seq 0: any acknowledgement covers those that were sent.
        while self._sent and self._sent[0].run_seq <= durable_run_seq:
            self._settle(self._sent.popleft(), in_flight=True)
        self.durable_run_seq = max(self.durable_run_seq, durable_run_seq)
        if ended:
            self.ended = True
            self.channel = 0  # the receiver has closed it with that
            self._clear()
        self._observer.acknowledged(self.durable_run_seq, ended)

    def on_rejected(self, run_seq: int, reason: str, message: str) -> None:
        # Rejections come in order; one at or below the last was told on an earlier stream.
        if run_seq and run_seq <= self._last_rejected:
            return
        self._last_rejected = run_seq
        self._observer.rejected(run_seq, reason, message)

    def on_refused(self, refusal: Refusal) -> None:
        if refusal.retryable:
            self.disconnected()
            self.is_paused = True
            self._observer.paused(refusal)
            return
        self.channel = 0
        self._refuse(refusal)

    def _refuse(self, refusal: Refusal) -> None:
        self.refusal = refusal
        self._clear()
        self._observer.refused(refusal)

    def disconnected(self) -> None:
        """The stream is gone; everything that is not known to be durable is to be sent again."""
        self.channel = 0
        self.is_paused = False
        self._renewed = False
        self._awaiting = False
        self._in_flight = 0
        self._replay.clear()
        while self._sent:
            self._unsent.appendleft(self._sent.pop())

    def close(self) -> None:
        """The owner is done: nothing of the run is kept."""
        self.closed = True
        self._clear()

    def _settle(self, entry: Entry, in_flight: bool) -> None:
        self.buffered_bytes -= entry.cost
        if in_flight:
            self._in_flight -= entry.cost
        if entry.opens_call:
            self._open_calls.add(entry.opens_call)
        if entry.closes_call:
            self._open_calls.discard(entry.closes_call)

    def _clear(self) -> None:
        self._unsent.clear()
        self._sent.clear()
        self._replay.clear()
        self._open_calls.clear()
        self.buffered_bytes = self._in_flight = 0


def _put(entry: Entry, into: list[RunEvent]) -> int:
    run_seq = entry.run_seq
    into.extend(RunEvent(run_seq=run_seq, event=event) for event in entry.events)
    return entry.cost
