"""All runs on one stream to one peer, without I/O.

Invariants: every run that has something to send has its turn, none waits for another's window;
a receipt reaches the run whose channel it names on the present stream, or nobody.
"""

from __future__ import annotations

from collections import deque

from factorychain._core.link.frames import MESSAGE_BYTES, TURN_BYTES
from factorychain._core.link.refusal import Refusal
from factorychain._core.link.run_sender import RunSender
from factorychain.types.v1.link_pb2 import RunFrame, RunReceipt


class LinkSender:
    """The sending end of one stream after another to the same peer."""

    def __init__(self, *, replay: bool = False) -> None:
        """`replay`: the receiver judges the order of events and so wants to see again those which
        turned out to be durable after they had been sent on a stream that broke.
        """
        self._replay = replay
        self._connected = False
        self._next_channel = 1
        self._runs: dict[RunSender, None] = {}
        self._channels: dict[int, RunSender] = {}
        self._ready: deque[RunSender] = deque()

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to put on the stream."""
        return not self._ready

    def add(self, run: RunSender) -> None:
        self._runs[run] = None
        self.touch(run)

    def touch(self, run: RunSender) -> None:
        """Something about the run has changed: it has its turn if it has something to send."""
        if self._connected and not run.queued and run.sendable:
            run.queued = True
            self._ready.append(run)

    def close(self, run: RunSender) -> None:
        """The run is over for its owner; the receiver is told if it knows of it."""
        run.close()
        self._runs.pop(run, None)
        self.touch(run)

    def resume(self, run: RunSender) -> None:
        """Opens a run again whose receiver could not take it."""
        run.is_paused = False
        self.touch(run)

    def connected(self) -> None:
        """A new stream is there: every run is opened on it."""
        self._connected = True
        self._next_channel = 1
        for run in self._runs:
            self.touch(run)

    def disconnected(self) -> None:
        self._connected = False
        for run in self._ready:
            run.queued = False
        self._ready.clear()
        self._channels.clear()
        for run in self._runs:
            run.disconnected()

    def take(self) -> list[RunFrame]:
        """The next message: what is there, a turn for each run, up to the size of a message."""
        frames: list[RunFrame] = []
        spent = 0
        while self._ready and spent < MESSAGE_BYTES:
            run = self._ready.popleft()
            run.queued = False
            if run.sendable:
                spent += self._take_turn(run, frames, min(TURN_BYTES, MESSAGE_BYTES - spent))
        return frames

    def _take_turn(self, run: RunSender, frames: list[RunFrame], budget: int) -> int:
        before = run.channel
        some, cost = run.frames(self._next_channel, budget)
        frames += some
        if run.channel != before:
            self._rechannel(run, before)
        self.touch(run)
        return cost

    def _rechannel(self, run: RunSender, before: int) -> None:
        self._channels.pop(before, None)
        if run.channel:
            self._channels[run.channel] = run
            self._next_channel += 1

    def receive(self, receipt: RunReceipt) -> None:
        """One answer of the receiver. One for a channel that is closed is late and says nothing."""
        run = self._channels.get(receipt.channel)
        if run is None or run.closed:
            return
        kind = receipt.WhichOneof("receipt")
        if kind == "acknowledged":
            if receipt.acknowledged.ended:
                del self._channels[receipt.channel]
            run.on_acknowledged(receipt.acknowledged.durable_run_seq, receipt.acknowledged.ended)
        elif kind == "opened":
            run.on_opened(receipt.opened, self._replay)
        elif kind == "rejected":
            rejected = receipt.rejected
            run.on_rejected(rejected.run_seq, rejected.reason, rejected.message)
        elif kind == "refused":
            del self._channels[receipt.channel]
            refused = receipt.refused
            run.on_refused(Refusal(refused.reason, refused.message, refused.retryable))
        self.touch(run)
