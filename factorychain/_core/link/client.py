"""The sending end of a link on a gRPC stream: one stream to one peer, opened again for ever.

Invariant: a message holds whatever is there when the stream can take one. There are no timers, so
nothing waits for company, and an event that comes to an idle stream is written at once.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

import grpc

from factorychain._core.component import TaskSet, detached
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.link.run import HEALTHY_AFTER_S, LinkRun, OnRejected, backoff_s
from factorychain._core.link.run_sender import RunObserver
from factorychain._core.link.sender import LinkSender
from factorychain._core.logging import get_logger
from factorychain._core.metrics import counter, up_down_counter
from factorychain.errors import FactoryChainError
from factorychain.types.v1.link_pb2 import RunFrame, RunReceipt

log = get_logger(__name__)

RequestT_contra = TypeVar("RequestT_contra", contravariant=True)
_LAST_WORD_S = 1.0
# Layers start in any order: a peer that has not come up after so many tries is worth a warning.
_TRIES_AT_START = 8

_streams = counter("factorychain.link.streams", "Streams opened to a peer, by link", "{stream}")
_open_runs = up_down_counter("factorychain.link.runs", "Runs open at the sending end", "{run}")


class ReceiptMessage(Protocol):
    """What comes back on the stream: `EmitResponse` or `PublishResponse`."""

    @property
    def receipts(self) -> Sequence[RunReceipt]: ...


class FrameStream(Protocol[RequestT_contra]):
    """A bidirectional call as grpc.aio makes it (`grpc.aio.StreamStreamCall`)."""

    def __aiter__(self) -> AsyncIterator[ReceiptMessage]: ...

    async def write(self, request: RequestT_contra) -> None: ...

    async def done_writing(self) -> None: ...

    def cancel(self) -> bool: ...


class LinkClient(Generic[RequestT_contra]):
    """A component: the stream to one peer, and the runs on it.

    `stream` makes the call (`lambda: stub.Emit()`), `request` its message from frames
    (`lambda frames: EmitRequest(frames=frames)`).
    """

    def __init__(
        self,
        name: str,
        stream: Callable[[], FrameStream[RequestT_contra]],
        request: Callable[[Sequence[RunFrame]], RequestT_contra],
        *,
        replay: bool = False,
    ) -> None:
        """`replay`: see `LinkSender`; set it towards the emitter."""
        self.name = name
        self._stream = stream
        self._request = request
        self._core = LinkSender(replay=replay)
        self._wake = asyncio.Event()
        self._tasks = TaskSet(name)
        self._connected = asyncio.Event()
        self._was_up = False
        self._up_since_s = math.inf
        self._stopping = False

    # --- component --------------------------------------------------------------------------

    @property
    def healthy(self) -> bool:
        """Whether the link works at all; an outage of the peer is not its own illness."""
        return self._tasks.healthy

    @property
    def connected(self) -> bool:
        """Whether the peer has answered on the present stream."""
        return self._connected.is_set()

    @property
    def runs(self) -> int:
        """How many runs are open."""
        return len(self._core)

    async def start(self) -> None:
        """Starts connecting, and does not wait for the peer: layers may start in any order."""
        self._connecting = self._tasks.spawn(self._connect_for_ever(), "stream")

    async def wait_connected(self) -> None:
        """Returns when the peer has answered."""
        await self._connected.wait()

    async def stop(self) -> None:
        """Gives up the stream. Whoever owns runs ends them before."""
        self._stopping = True
        self._wake.set()
        await self._tasks.close()

    # --- runs -------------------------------------------------------------------------------

    def open(
        self,
        ctx: UserExecutionContext,
        *,
        trace: str = "",
        resumed: bool = False,
        durable_run_seq: int = 0,
        open_calls: Iterable[str] = (),
        observer: RunObserver | None = None,
        on_rejected: OnRejected | None = None,
    ) -> LinkRun:
        """Opens a run, at once and optimistically: a refusal comes out of the next call on it.

        `resumed`: events of this run may have been sent before by somebody else, so nothing is sent
        until the receiver has said what is durable.
        """
        run = LinkRun(
            self,
            ctx,
            trace=trace,
            resumed=resumed,
            durable_run_seq=durable_run_seq,
            open_calls=open_calls,
            observer=observer,
            on_rejected=on_rejected,
        )
        _open_runs.add(1, {"link": self.name})
        self._core.add(run.core)
        self._wake.set()
        return run

    def touch(self, run: LinkRun) -> None:
        self._core.touch(run.core)
        self._wake.set()

    def resume(self, run: LinkRun) -> None:
        self._core.resume(run.core)
        self._wake.set()

    def close(self, run: LinkRun) -> None:
        _open_runs.add(-1, {"link": self.name})
        self._core.close(run.core)
        self._wake.set()

    # --- the stream -------------------------------------------------------------------------

    async def _connect_for_ever(self) -> None:
        failures = 0
        while not self._stopping:
            self._up_since_s = math.inf  # a call that nobody answers is not healthy, however long
            await self._one_stream(failures)
            if time.monotonic() - self._up_since_s >= HEALTHY_AFTER_S:
                failures = 0
            # No sleep after a stream that had been healthy: a peer that drains closes it on purpose.
            await asyncio.sleep(backoff_s(failures) if failures else 0)
            failures += 1

    async def _one_stream(self, failures: int) -> None:
        _streams.add(1, {"link": self.name})
        call = self._stream()
        self._core.connected()
        # Shared by all runs, so in contexts of their own: nobody's identity stays in them.
        reader = detached(self._read(call), name=f"{self.name}:read")
        writer = detached(self._write(call), name=f"{self.name}:write")
        try:
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            # A writer that stops first was told by the stream; the reader hears why.
            await asyncio.wait({reader}, timeout=_LAST_WORD_S)
        finally:
            self._connected.clear()
            reader.cancel()
            writer.cancel()
            ends = await asyncio.gather(reader, writer, return_exceptions=True)
            call.cancel()
            self._core.disconnected()
        self._report(ends, failures)

    def _report(self, ends: Sequence[BaseException | None], failures: int) -> None:
        for error in ends:
            if isinstance(error, (grpc.aio.AioRpcError, FactoryChainError)):
                # Once at a glance, then at every doubling: an outage may last.
                if failures & (failures - 1) == 0:
                    expected = not self._was_up and failures < _TRIES_AT_START
                    say = log.debug if expected else log.warning
                    say("the link broke", link=self.name, cause=_cause(error))
                return
            if isinstance(error, Exception):
                log.error("the link failed", link=self.name, exc_info=error)
                return
        log.info("the peer closed the link", link=self.name)

    async def _read(self, call: FrameStream[RequestT_contra]) -> None:
        async for message in call:
            if not self._connected.is_set():
                self._connected.set()
                self._up_since_s = time.monotonic()
                self._was_up = True
                log.info("the link is up", link=self.name)
            for receipt in message.receipts:
                try:
                    self._core.receive(receipt)
                except Exception:
                    log.exception("a run could not take its receipt", link=self.name)
            if not self._core.idle:
                self._wake.set()

    async def _write(self, call: FrameStream[RequestT_contra]) -> None:
        try:
            while not self._stopping:
                frames = self._core.take()
                if frames:
                    await call.write(self._request(frames))
                else:
                    self._wake.clear()
                    await self._wake.wait()
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, FactoryChainError):
            # The stream is gone. The reader hears why, and what was taken is sent again.
            return


def _cause(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error)
