"""The receiving end of a link on a gRPC stream: verifies each opening, hands on events, answers.

Invariants: identity comes from the verified token of `RunOpen` alone; what goes wrong in one run
(its opening, its events, its handler) ends that run's channel and no other; a handler is closed
exactly once. An answer that nobody waits for may take `_COMPANY_S` to be said: most then travel with
another one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from factorychain._core.component import TaskSet
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.link.receiver import (
    Closing,
    Delivery,
    Events,
    LinkReceiver,
    Opening,
    Renewal,
    Step,
)
from factorychain._core.link.refusal import Refusal
from factorychain._core.logging import get_logger
from factorychain.errors import FactoryChainError, TokenInvalid
from factorychain.types.v1.link_pb2 import RunFrame, RunOpen, RunReceipt

log = get_logger(__name__)

ResponseT = TypeVar("ResponseT")
_INTERNAL = Refusal("INTERNAL", "the receiver failed on this run; its log says why")
_COMPANY_S = 0.02
_EXPIRED = Refusal("TOKEN_EXPIRED", "the run's token has expired while its channel was open")


class FrameMessage(Protocol):
    """What arrives on the stream: `EmitRequest` or `PublishRequest`."""

    @property
    def frames(self) -> Sequence[RunFrame]: ...


class Receipts(Protocol):
    """How a handler answers on its channel. All return at once; after the channel is over they do
    nothing. An opening is answered by returning from it, not here.
    """

    def acknowledged(self, durable_run_seq: int, ended: bool = False) -> None: ...

    def rejected(self, run_seq: int, reason: str, message: str) -> None: ...

    def refused(self, refusal: Refusal) -> None:
        """Closes the channel from this side; the handler hears nothing more, not even `close`."""


class ChannelHandler(Protocol):
    """One open run at the receiver."""

    @property
    def durable_run_seq(self) -> int:
        """The highest run_seq that is durable when the channel opens; read once."""

    async def wait_opened(self) -> None:
        """Returns when `durable_run_seq` is known; awaited only for an opening that is resumed.
        A `FactoryChainError` refuses it. Other runs go on meanwhile.
        """

    def events(self, events: Events) -> None:
        """Takes events, in order. Must not block: the window bounds what comes before the next
        acknowledgement. Events up to `durable_run_seq` may come again after a reconnect.
        """

    def renewed(self, ctx: UserExecutionContext) -> None:
        """The run lives longer: this is what its next token says, which was verified."""

    def close(self) -> None:
        """The run's ending is acknowledged, or the sender is done with the run, or the stream is gone,
        or the run broke a rule.
        """


class LinkHandler(Protocol):
    """What a layer does with the runs that are opened on it."""

    def open(
        self, ctx: UserExecutionContext, opening: RunOpen, receipts: Receipts
    ) -> ChannelHandler:
        """Opens a run, at once: its events are next. A `FactoryChainError` refuses it."""


class LinkServer(Generic[ResponseT]):
    """Serves the streams of one RPC, each with state of its own."""

    def __init__(
        self,
        name: str,
        handler: LinkHandler,
        verify: Callable[[str], UserExecutionContext],
        response: Callable[[Sequence[RunReceipt]], ResponseT],
        *,
        window_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`verify` raises `TokenInvalid` or `TokenExpired`; `response` makes the RPC's response."""
        self.name = name
        self._handler = handler
        self._verify = verify
        self._response = response
        self._window_bytes = window_bytes
        self._clock = clock
        self._streams: dict[_Stream, None] = {}

    @property
    def channels(self) -> int:
        """How many runs are open now."""
        return sum(len(each) for each in self._streams)

    def drain(self) -> None:
        """Ends every stream after what waits to be answered; clients open them again elsewhere."""
        for stream in self._streams:
            stream.end()

    async def serve(self, requests: AsyncIterator[FrameMessage]) -> AsyncGenerator[ResponseT, None]:
        """The body of the RPC: an empty response at once, so that the client knows that it is
        connected, then receipts until the client is done.
        """
        receiver = LinkReceiver(window_bytes=self._window_bytes)
        stream = _Stream(self.name, receiver, self._handler, self._verify, self._clock)
        self._streams[stream] = None
        stream.start(requests)
        try:
            yield self._response(())
            while await stream.answerable():
                yield self._response(receiver.take())
        finally:
            self._streams.pop(stream, None)
            await stream.stop()


class _Stream:
    """One stream: a task that reads, one for each resumed opening that is under way."""

    def __init__(
        self,
        name: str,
        receiver: LinkReceiver,
        handler: LinkHandler,
        verify: Callable[[str], UserExecutionContext],
        clock: Callable[[], float],
    ) -> None:
        self._receiver = receiver
        self._handler = handler
        self._verify = verify
        self._clock = clock
        self._tasks = TaskSet(f"{name} link")
        self._openings: dict[int, asyncio.Task[None]] = {}
        self._handlers: dict[int, ChannelHandler] = {}
        self._contexts: dict[int, UserExecutionContext] = {}
        self._wake = asyncio.Event()
        self._later: asyncio.TimerHandle | None = None
        self._done = False

    def __len__(self) -> int:
        return len(self._receiver)

    def start(self, requests: AsyncIterator[FrameMessage]) -> None:
        self._reader = self._tasks.spawn(self._read(requests), "read")

    async def _read(self, requests: AsyncIterator[FrameMessage]) -> None:
        try:
            async for message in requests:
                for frame in message.frames:
                    step = self._receiver.receive(frame)
                    if step is not None:
                        self._take(step)
                self._answer()
        finally:
            self.end()

    def end(self) -> None:
        """Nothing more is read or answered but what waits to be answered."""
        self._done = True
        self._wake.set()

    async def answerable(self) -> bool:
        """Waits for receipts; False when the client is done and everything is answered."""
        while not self._done:
            await self._wake.wait()
            self._wake.clear()
            if not self._receiver.idle:
                return True
        return not self._receiver.idle

    def _answer(self) -> None:
        """Has said what there is to say, now or soon."""
        if self._receiver.urgent:
            self._wake.set()
        elif self._later is None and not self._receiver.idle:
            self._later = asyncio.get_running_loop().call_later(_COMPANY_S, self._say)

    def _say(self) -> None:
        self._later = None
        self._wake.set()

    async def stop(self) -> None:
        if self._later is not None:
            self._later.cancel()
        await self._tasks.close()
        for number in list(self._handlers):
            self._close(number)

    # --- steps ------------------------------------------------------------------------------

    def _take(self, step: Step) -> None:
        if isinstance(step, Delivery):
            self._deliver(step.channel, step.events)
        elif isinstance(step, Opening):
            self._open(step.channel, step.request)
        elif isinstance(step, Renewal):
            self._renew(step.channel, step.token)
        else:
            self._closing(step)

    def _closing(self, step: Closing) -> None:
        opening = self._openings.pop(step.channel, None)
        if opening is not None:
            opening.cancel()
        self._close(step.channel)

    def _open(self, number: int, request: RunOpen) -> None:
        # Here and now: the first event of a new run is in the same message.
        try:
            ctx = self._verify(request.token)
            handler = self._handler.open(ctx, request, _ChannelReceipts(self, number))
        except Exception as error:  # noqa: BLE001 - `_refusal` tells ours from the unexpected, which it logs
            self.refuse(number, _refusal(error, number))
            return
        if not self._receiver.is_open(number):  # refused from within
            handler.close()
            return
        self._handlers[number] = handler
        self._contexts[number] = ctx
        if request.resumed:
            resuming = self._tasks.spawn(self._resume(number, handler), "open")
            self._openings[number] = resuming
        else:
            self._opened(number, handler)

    def _renew(self, number: int, token: str) -> None:
        handler, known = self._handlers.get(number), self._contexts.get(number)
        if handler is None or known is None:
            return
        try:
            ctx = self._verify(token)
            if not _same_run(ctx, known):
                raise TokenInvalid("the token is of another run")
            handler.renewed(ctx)
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(number, _refusal(error, number))
        else:
            self._contexts[number] = ctx

    async def _resume(self, number: int, handler: ChannelHandler) -> None:
        try:
            await handler.wait_opened()
        except Exception as error:  # noqa: BLE001 - as above
            self._close(number)
            self.refuse(number, _refusal(error, number))
        else:
            self._opened(number, handler)
        finally:
            self._openings.pop(number, None)

    def _opened(self, number: int, handler: ChannelHandler) -> None:
        early = self._receiver.opened(number, handler.durable_run_seq)
        self._answer()
        if early:
            self._deliver(number, early)

    def _deliver(self, number: int, events: Events) -> None:
        handler = self._handlers.get(number)
        if handler is None:
            return
        if self._clock() >= self._contexts[number].expires_at_s:
            self._fail(number, _EXPIRED)
            return
        try:
            handler.events(events)
        except Exception:
            log.exception("a run's events could not be handled", channel=number)
            self._fail(number, _INTERNAL)

    def _fail(self, number: int, refusal: Refusal) -> None:
        self._receiver.refuse(number, refusal)
        self._close(number)
        self._answer()

    def _close(self, number: int) -> None:
        handler = self._handlers.pop(number, None)
        self._contexts.pop(number, None)
        if handler is None:
            return
        try:
            handler.close()
        except Exception:
            log.exception("a run could not be closed", channel=number)

    # --- what handlers say ------------------------------------------------------------------

    def acknowledge(self, number: int, durable_run_seq: int, ended: bool) -> None:
        self._receiver.acknowledge(number, durable_run_seq, ended)
        if ended:
            # Not here and now: the handler itself is saying this.
            asyncio.get_running_loop().call_soon(self._close, number)
        self._answer()

    def reject(self, number: int, run_seq: int, reason: str, message: str) -> None:
        self._receiver.reject(number, run_seq, reason, message)
        self._answer()

    def refuse(self, number: int, refusal: Refusal) -> None:
        if not self._receiver.is_open(number):
            return
        self._receiver.refuse(number, refusal)
        self._handlers.pop(number, None)
        self._contexts.pop(number, None)
        self._answer()


def _same_run(one: UserExecutionContext, other: UserExecutionContext) -> bool:
    same = (one.principal, one.thread, one.run, one.attempt, one.scope)
    return same == (other.principal, other.thread, other.run, other.attempt, other.scope)


def _refusal(error: Exception, number: int) -> Refusal:
    if isinstance(error, FactoryChainError):
        return Refusal.of(error)
    log.error("a run could not be opened", channel=number, exc_info=error)
    return _INTERNAL


class _ChannelReceipts:
    """`Receipts` of one channel."""

    __slots__ = ("_number", "_stream")

    def __init__(self, stream: _Stream, number: int) -> None:
        self._stream = stream
        self._number = number

    def acknowledged(self, durable_run_seq: int, ended: bool = False) -> None:
        self._stream.acknowledge(self._number, durable_run_seq, ended)

    def rejected(self, run_seq: int, reason: str, message: str) -> None:
        self._stream.reject(self._number, run_seq, reason, message)

    def refused(self, refusal: Refusal) -> None:
        self._stream.refuse(self._number, refusal)
