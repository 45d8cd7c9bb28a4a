"""A thread's log with a server that stores, refuses, loses answers and stores late; and its writers."""

from __future__ import annotations

from dataclasses import dataclass, field

from factorychain._core.execution_context import UserExecutionContext
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain.types.v1.event_pb2 import Event
from factorychain_bridge.batches import Append
from factorychain_bridge.thread_log import ReadForward, ThreadLog
from tests.unit.bridge.samples import EPOCH, Outcomes

BATCH_MAX_BYTES = 4096


@dataclass
class Log:
    """One thread's messages on the server, and appends that are still on their way."""

    messages: list[tuple[int, bytes]] = field(default_factory=list)
    on_the_way: list[tuple[int, bytes]] = field(default_factory=list)
    next_stream_seq: int = 1

    def append(self, expected: int, payload: bytes) -> int | None:
        """The new stream sequence; None: the last message is another than expected."""
        if expected != self.last_stream_seq:
            return None
        stream_seq = self.next_stream_seq
        self.next_stream_seq += 3  # other threads write to the stream as well
        self.messages.append((stream_seq, payload))
        return stream_seq

    @property
    def last_stream_seq(self) -> int:
        return self.messages[-1][0] if self.messages else 0

    def batches(self) -> list[LogBatch]:
        return [LogBatch.FromString(payload) for _, payload in self.messages]

    def write(self, batch: LogBatch) -> int:
        """Somebody else's append."""
        last = self.batches()[-1] if self.messages else None
        batch.first_seq = last.first_seq + len(last.events) if last else 1
        batch.epoch = last.epoch if last else EPOCH
        stored = self.append(self.last_stream_seq, batch.SerializeToString())
        assert stored is not None
        return stored

    def settle(self) -> None:
        """Everything that is on its way arrives."""
        for expected, payload in self.on_the_way:
            self.append(expected, payload)
        self.on_the_way.clear()

    def events(self, run: str) -> list[Event]:
        return [event for each in self.batches() if each.run == run for event in each.events]

    def check(self) -> None:
        """The numbering is dense, and nothing of a run comes after its ending."""
        seq, epoch = 0, 0
        ended: set[str] = set()
        for each in self.batches():
            if each.epoch != epoch:
                assert each.epoch > epoch
                epoch, seq = each.epoch, each.first_seq - 1 if epoch == 0 else 0
            assert each.first_seq == seq + 1
            assert each.events
            assert each.ByteSize() <= BATCH_MAX_BYTES
            assert each.run not in ended
            seq += len(each.events)
            if each.ends:
                ended.add(each.run)


class Writer:
    """A writer core against that server. What happens to an append is said at each step."""

    def __init__(
        self,
        log: Log,
        context: UserExecutionContext,
        *,
        resumed: bool = False,
        batch_max_bytes: int = BATCH_MAX_BYTES,
    ) -> None:
        self.log = log
        self.outcomes = Outcomes()
        self.core = ThreadLog(
            context,
            self.outcomes,
            resumed=resumed,
            batch_max_bytes=batch_max_bytes,
            now_ms=lambda: EPOCH + 1,
        )

    def step(self, fate: str = "stored") -> bool:
        """One step; False: there is nothing to do.

        `fate` of an append: stored; unanswered (stored, but nobody says so); lost; late (no answer, and it
        arrives at some later time).
        """
        step = self.core.next_step()
        if step is None:
            return False
        if isinstance(step, ReadForward):
            self._read(step)
        else:
            self._append(step, fate)
        return True

    def _append(self, append: Append, fate: str) -> None:
        if fate == "late":
            self.log.on_the_way.append((append.expected, append.payload))
        stored = None
        if fate in ("stored", "unanswered"):
            stored = self.log.append(append.expected, append.payload)
        if fate == "stored" and stored is not None:
            self.core.on_appended(stored)
        else:
            self.core.on_append_failed()

    def _read(self, step: ReadForward) -> None:
        if not self.log.messages:
            self.core.on_empty()
        for stream_seq, payload in self.log.messages:
            if stream_seq > step.after:
                self.core.on_message(stream_seq, payload)
        self.core.on_read_done()

    def run(self) -> None:
        """Until there is nothing left to do."""
        for _ in range(1000):
            if not self.step():
                return
        raise AssertionError("the writer does not come to an end")

    @property
    def said(self) -> list[tuple[object, ...]]:
        return self.outcomes.said

    @property
    def acknowledged(self) -> int:
        return max(
            (int(str(each[1])) for each in self.said if each[0] == "acknowledged"), default=0
        )


def texts(events: list[Event]) -> list[tuple[str, str]]:
    """Kind and text of each event, deltas of one message joined however they were cut."""
    found: list[tuple[str, str]] = []
    for event in events:
        kind = event.WhichOneof("event") or ""
        part = getattr(event, kind)
        if kind in ("message_delta", "thinking_delta"):
            key = f"{kind}/{part.message}"
            if found and found[-1][0] == key:
                found[-1] = (key, found[-1][1] + part.text)
            else:
                found.append((key, part.text))
        else:
            found.append((kind, getattr(part, "text", "")))
    return found
