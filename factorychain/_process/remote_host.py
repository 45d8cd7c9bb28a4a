"""`RunHost` in a run process: the service, behind the socket.

Invariant: no more than a window of events is under way, so that what an agent says waits in the agent;
signs of life are never behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from factorychain._instance.host import check_value
from factorychain._instance.spec import Outcome, SpanRecord
from factorychain._process.asked import unpack_loaded, unpack_revision
from factorychain._process.asking import Asking, Posting
from factorychain._process.messages import number, pack_outcome, pack_span
from factorychain._process.wire import (
    ENTRY_BYTES,
    EVENT_MAX_BYTES,
    WINDOW_BYTES,
    FromInstance,
    frame,
)
from factorychain.errors import EventRejected, RunEnded


class RemoteHost:
    """The service as an instance sees it."""

    def __init__(self, outbox: Posting) -> None:
        self._outbox = outbox
        self._room = WINDOW_BYTES
        self._waiting_events: deque[tuple[int, bytes]] = deque()
        self._waiters: list[asyncio.Future[None]] = []
        self._asking = Asking(outbox)
        self._closed = False

    # --- what the agent's code does (`RunHost`) ---

    async def emit(self, kind: int, event: bytes) -> None:
        if self._closed:
            raise RunEnded("the run is over; nothing more can be said in it")
        if len(event) > EVENT_MAX_BYTES:
            raise EventRejected("EVENT_TOO_LARGE", f"no event may have {len(event)} bytes")
        self._waiting_events.append((kind, event))
        self._send()
        # It leaves in its turn also if who waits here is cancelled.
        while (self._waiting_events or self._room <= 0) and not self._closed:
            await self._change()

    def beat(self) -> None:
        self._outbox.post(frame(FromInstance.BEAT))

    def created(self) -> None:
        self._outbox.post(frame(FromInstance.CREATED))

    def span(self, record: SpanRecord) -> None:
        self._outbox.post(frame(FromInstance.SPAN, pack_span(record)), loose=True)

    async def ask(self, event: bytes, timeout_s: float) -> bytes:
        while self._waiting_events and not self._closed:  # what was said before comes before
            await self._change()
        return b"".join(await self._asking.ask("ask", event, timeout_s=timeout_s))

    async def history(self, limit: int) -> Sequence[bytes]:
        return await self._asking.ask("history", limit=limit)

    async def load(self, name: str) -> tuple[bytes | None, int]:
        check_value(name)
        return unpack_loaded(await self._asking.ask("load", name=name))

    async def store(self, name: str, value: bytes | None, revision: int) -> int:
        check_value(name, value)
        body, removed = value or b"", value is None
        parts = await self._asking.ask("store", body, name=name, revision=revision, removed=removed)
        return unpack_revision(parts[0])

    async def outcome(self, outcome: Outcome) -> None:
        """The last that is said, when there was room for everything before."""
        while self._waiting_events and not self._closed:
            await self._change()
        self._outbox.post(frame(FromInstance.OUTCOME, pack_outcome(outcome)))

    # --- what the service says ---

    def more_room(self, passed_on_bytes: int) -> None:
        """Events were passed on."""
        self._room += passed_on_bytes
        self._send()
        if self._room > 0:
            self._wake()

    def close(self) -> None:
        """Nothing more is passed on."""
        self._closed = True
        self._waiting_events.clear()
        self._asking.close()
        self._wake()

    def answer_part(self, request: int, part: bytes) -> None:
        self._asking.part(request, part)

    def answer_end(self, request: int, problem: bytes) -> None:
        """An answer is whole, or there is none."""
        self._asking.end(request, problem)

    def _send(self) -> None:
        """Send what there is room for; one may go beyond, since it may be larger than the window."""
        while self._waiting_events and self._room > 0:
            kind, event = self._waiting_events.popleft()
            self._room -= len(event) + ENTRY_BYTES
            self._outbox.post(frame(FromInstance.EVENT, number(kind) + event))

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for each in waiters:
            if not each.done():
                each.set_result(None)
