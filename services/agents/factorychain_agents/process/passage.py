"""The way of a run's events from its process to the host.

Invariant: they arrive in order, one at a time, then the outcome, then nothing; no more than a window of
them (and one) waits here, since an instance that sends more is not ours any more. Text that had to wait
for the run's pace goes on as one event, so that a fast model is not slowed down.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from factorychain._core.component import detached
from factorychain._instance.host import RunHost
from factorychain._instance.spec import Outcome
from factorychain._process.wire import ENTRY_BYTES, EVENT_MAX_BYTES, WINDOW_BYTES, BrokenFrame
from factorychain.errors import EventRejected, FactoryChainError
from factorychain_agents.process.merging import Deltas
from factorychain_agents.process.pace import Pace

_ROOM_EVERY_BYTES: Final = WINDOW_BYTES // 4
# Timers are no finer than a millisecond: what is due is paid in larger pieces.
_WORTH_WAITING_S: Final = 0.02


class Replies(Protocol):
    """What the instance is told of its events."""

    def room(self, passed_on_bytes: int) -> None: ...

    def reject(self, reason: str, message: str) -> None: ...

    def closed(self) -> None: ...


class Passage:
    """Passes on what one run says."""

    def __init__(
        self,
        run: str,
        host: RunHost,
        replies: Replies,
        pace: Pace,
        done: Callable[[Outcome], None],
    ) -> None:
        self._host = host
        self._replies = replies
        self._pace = pace
        self._done = done
        self._queue: deque[tuple[int, bytes] | Outcome | asyncio.Future[None]] = deque()
        self._queued_bytes = 0
        self._passed_bytes = 0
        self._more = asyncio.Event()
        self._task = detached(self._pass_on(), name=f"events of {run}")

    def take(self, kind: int, event: bytes) -> None:
        """An event that was checked.

        Raises:
            BrokenFrame: there was no room for it.
        """
        if self._queued_bytes > WINDOW_BYTES + EVENT_MAX_BYTES:
            raise BrokenFrame("it sends more than there is room for")
        # What an entry costs counts too: without it a window holds any number of empty events.
        self._queued_bytes += len(event) + ENTRY_BYTES
        self._queue.append((kind, event))
        self._more.set()

    def in_turn(self) -> asyncio.Future[None]:
        """Done when everything that was taken until now is passed on."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        self._more.set()
        return turn

    def finish(self, outcome: Outcome) -> None:
        """The last that comes."""
        self._queue.append(outcome)
        self._more.set()

    def close(self) -> None:
        """Pass on nothing more; who waits for the outcome was told another one."""
        self._task.cancel()

    async def _pass_on(self) -> None:
        while True:
            while not self._queue:
                self._more.clear()
                await self._more.wait()
            each = self._queue.popleft()
            if isinstance(each, Outcome):
                self._done(each)
                return
            if isinstance(each, asyncio.Future):
                if not each.done():  # else who waited was cancelled
                    each.set_result(None)
                continue
            await self._emit(*each)

    async def _emit(self, kind: int, event: bytes) -> None:
        size = len(event) + ENTRY_BYTES
        wait_s = self._pace.take(time.monotonic())
        if wait_s > _WORTH_WAITING_S:
            await asyncio.sleep(wait_s)
            event, joined = self._joined(kind, event)
            size += joined
        try:
            await self._host.emit(kind, event)
        except EventRejected as error:
            self._replies.reject(error.reason, error.message)
        except FactoryChainError:  # the run is over for this process
            self._replies.closed()
        self._queued_bytes -= size
        self._passed_bytes += size
        if self._passed_bytes >= _ROOM_EVERY_BYTES:
            self._replies.room(self._passed_bytes)
            self._passed_bytes = 0

    def _joined(self, kind: int, event: bytes) -> tuple[bytes, int]:
        """The event with the text that came after it meanwhile, and what that took of the window."""
        deltas = Deltas(kind, event)
        taken = 0
        while self._queue:
            following = self._queue[0]
            if not isinstance(following, tuple) or not deltas.add(*following):
                break
            self._queue.popleft()
            taken += len(following[1]) + ENTRY_BYTES
        return deltas.event(), taken
