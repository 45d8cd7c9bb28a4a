"""One run at the sending end of a link, as its owner awaits it.

Invariant: `send` returns only when the run is within its window, and an event that it took is sent
even if the caller was cancelled while waiting, so that run_seq has no gaps.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.link.refusal import Refusal
from factorychain._core.link.run_sender import RunObserver, RunSender
from factorychain.errors import RunEnded

OnRejected = Callable[[int, str, str], None]
"""Called with run_seq, reason and message of an event that the receiver refused."""

HEALTHY_AFTER_S = 5.0
"""How long a stream, or a run on it, must have been open for what failed before to be forgotten."""
_FIRST_DELAY_S = 0.05
_MAX_DELAY_S = 2.0


class LinkRun:
    """One run at the sending end. Made by `LinkClient.open`; `async with` closes it."""

    def __init__(
        self,
        link: RunLink,
        ctx: UserExecutionContext,
        *,
        trace: str,
        resumed: bool,
        durable_run_seq: int,
        open_calls: Iterable[str],
        observer: RunObserver | None,
        on_rejected: OnRejected | None,
    ) -> None:
        self._link = link
        self._observer = observer
        self._on_rejected = on_rejected
        self._waiters: list[asyncio.Future[None]] = []
        self._retry: asyncio.TimerHandle | None = None
        self._retries = 0
        self._open_since_s = math.inf
        self.core = RunSender(
            ctx.token,
            self,
            trace=trace,
            resumed=resumed,
            durable_run_seq=durable_run_seq,
            open_calls=open_calls,
        )

    # --- what the owner does ----------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether an ending of the run is durable."""
        return self.core.ended

    @property
    def durable_run_seq(self) -> int:
        """Everything up to here is durable or was rejected."""
        return self.core.durable_run_seq

    @property
    def has_room(self) -> bool:
        """Whether `send` would return at once."""
        return self.core.has_room

    @property
    def all_durable(self) -> bool:
        """Whether nothing that was sent waits to become durable."""
        return self.core.empty

    def offer(
        self, run_seq: int, events: Sequence[bytes], *, opens_call: str = "", closes_call: str = ""
    ) -> None:
        """Queues events without waiting, for an owner that bounds them itself. Several in one call
        become durable together or not at all.
        """
        self.core.offer(run_seq, events, opens_call, closes_call)
        self._link.touch(self)

    async def send(
        self, event: bytes, run_seq: int, *, opens_call: str = "", closes_call: str = ""
    ) -> None:
        """Queues one event and waits until the run is within its window.

        Name the call that a `tool_executing` opens or a `tool_completed` closes: after a reconnect
        a receiver that starts in the middle is told which calls are open. Raises the error that the
        receiver closed the run with (`RunEnded`, `AttemptSuperseded`, `TokenExpired`, …).
        """
        self._check()
        if self.core.ended:
            raise RunEnded
        self.offer(run_seq, (event,), opens_call=opens_call, closes_call=closes_call)
        while not self.core.has_room:
            await self._change()
            self._check()

    def renew(self, token: str) -> None:
        """The run lives longer than its token said: this is its next one."""
        if not self.core.over:
            self.core.renew(token)
            self._link.touch(self)

    async def flushed(self) -> None:
        """Returns when everything that was sent is durable or was rejected."""
        while not self.core.empty:
            await self._change()
        if not self.core.ended:
            self._check()

    async def wait_ended(self) -> None:
        """Returns when an ending of the run is durable, whoever wrote it."""
        while not self.core.ended:
            if (
                self.core.refusal is not None
                and self.core.refusal.reason == RunEnded.default_reason
            ):
                return
            self._check()
            await self._change()

    async def close(self) -> None:
        """Done with the run: what is not durable by now is given up. May be called twice."""
        self.discard()

    def discard(self) -> None:
        """`close` for callers that cannot wait."""
        if self.core.closed:
            return
        if self._retry is not None:
            self._retry.cancel()
        self._link.close(self)
        self._wake()

    async def __aenter__(self) -> LinkRun:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _check(self) -> None:
        if self.core.refusal is not None:
            raise self.core.refusal.to_error()
        if self.core.closed:
            raise RunEnded("this end of the run's link is closed")

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # --- what the receiver says (`RunObserver`) ---------------------------------------------

    def opened(self, durable_run_seq: int) -> None:
        self._open_since_s = time.monotonic()
        if self._observer is not None:
            self._observer.opened(durable_run_seq)
        self._wake()

    def acknowledged(self, durable_run_seq: int, ended: bool) -> None:
        if self._observer is not None:
            self._observer.acknowledged(durable_run_seq, ended)
        self._wake()

    def rejected(self, run_seq: int, reason: str, message: str) -> None:
        if self._observer is not None:
            self._observer.rejected(run_seq, reason, message)
        if self._on_rejected is not None:
            self._on_rejected(run_seq, reason, message)

    def refused(self, refusal: Refusal) -> None:
        if self._observer is not None:
            self._observer.refused(refusal)
        self._wake()

    def paused(self, refusal: Refusal) -> None:
        if self._observer is not None:
            self._observer.paused(refusal)
        # A receiver that opens a run and pauses it at once is not to be asked without pause.
        if time.monotonic() - self._open_since_s >= HEALTHY_AFTER_S:
            self._retries = 0
        self._open_since_s = math.inf
        delay_s = backoff_s(self._retries)
        self._retries += 1
        self._retry = asyncio.get_running_loop().call_later(delay_s, self._link.resume, self)


class RunLink(Protocol):
    """What a run needs of its link."""

    def touch(self, run: LinkRun) -> None: ...

    def resume(self, run: LinkRun) -> None: ...

    def close(self, run: LinkRun) -> None: ...


def backoff_s(failures: int) -> float:
    """Full jitter below a doubling bound."""
    return random.uniform(0, min(_MAX_DELAY_S, _FIRST_DELAY_S * 2 ** min(failures, 10)))
