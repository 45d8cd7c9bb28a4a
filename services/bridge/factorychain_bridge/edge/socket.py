"""One WebSocket: carries what the session decides to aiohttp and back.

Invariants: one task reads and one writes; a slow operation never delays the next frame, a slow
client never delays anybody else; whatever way the socket ends, its subscriptions, its place among
the user's sockets and its tasks end with it. Losing a socket cancels no run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from aiohttp import WSMsgType

from factorychain._core.crash_points import crash_point
from factorychain._core.ids import Principal
from factorychain._core.logging import get_logger
from factorychain._core.status import as_error
from factorychain._core.telemetry import counter
from factorychain.errors import FactoryChainError
from factorychain_bridge.edge.feeds import Feeds
from factorychain_bridge.edge.frames import Auth, Operation, Start
from factorychain_bridge.edge.limits import Place
from factorychain_bridge.edge.operations import Answer, Later
from factorychain_bridge.edge.outbox import Outbox, Pong
from factorychain_bridge.edge.outputs import Close, Do, Output, Send, Verify
from factorychain_bridge.edge.parts import Connection, Shared
from factorychain_bridge.edge.session import Session
from factorychain_bridge.edge.transport import Transport
from factorychain_bridge.items import StopReason

log = get_logger(__name__)

CLOSE_TIMEOUT_S = 5.0
"""How long a client may take to answer a close, and a slow one to read what is under way."""
LINGER_S = 1.0

_closes = counter("factorychain.edge.closes", "Sockets that the edge closed, by close code")
_operations = counter("factorychain.edge.operations", "Operations of clients, by op and outcome")


class EdgeSocket:
    """One connection, from its upgrade to its end."""

    def __init__(self, transport: Transport, session: Session, shared: Shared) -> None:
        self._transport = transport
        self._session = session
        self._shared = shared
        self._outbox = Outbox(session.limits.queue_bytes)
        self._feeds: Feeds | None = None
        self._connection: Connection | None = None
        self._place: Place | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._ends_with_socket: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._read_out = asyncio.Event()
        self._broken = False
        transport.on_too_big = self._on_too_big

    @property
    def principal(self) -> Principal | None:
        return self._session.principal

    async def run(self) -> None:
        """Serve the socket until it has ended."""
        self._writer = self._spawn(self._write(), "socket writer")
        self._schedule()
        try:
            await self._read()
        finally:
            self._read_out.set()
            self._release()
            await self._part()

    # --- reading -------------------------------------------------------------------------------

    async def _read(self) -> None:
        # Also after the session has closed: the client's answer to the close is waited for.
        session, transport = self._session, self._transport
        while True:
            message = await transport.receive()
            if message.type is WSMsgType.TEXT:
                self._apply(session.receive(message.data))
            elif message.type is WSMsgType.BINARY:
                self._apply(session.binary())
            elif message.type is WSMsgType.PING:
                self._apply(session.ping(message.data))
            elif message.type is WSMsgType.PONG:
                self._apply(session.pong())
            else:
                return

    def _on_too_big(self) -> None:
        self._broken = True
        self._apply(self._session.too_big())

    def _apply(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            if isinstance(output, Send):
                if not self._outbox.put(output.frame):
                    self._apply(self._session.stopped(StopReason.SLOW_CONSUMER))
            elif isinstance(output, Do):
                self._begin(output.operation)
            elif isinstance(output, Verify):
                _ = self._spawn(self._authenticate(output.auth), "auth")
            else:
                self._closing = self._shared.tasks.spawn(self._close(output), "socket close")

    # --- operations ----------------------------------------------------------------------------

    def _begin(self, operation: Operation) -> None:
        principal, feeds = self._session.principal, self._feeds
        assert principal is not None, "the session lets nothing through before a token was verified"
        assert feeds is not None, "feeds are made before the session is told of the token"
        try:
            begun = self._shared.operations.begin(operation, feeds, principal, self._session.token)
        except FactoryChainError as error:
            self._fail(operation, error)
            return
        if isinstance(begun, Answer):
            self._answer(operation, begun)
        elif isinstance(operation, Start):
            # Finished even if the socket is lost: a start that is cancelled half-way helps nobody.
            _ = self._shared.tasks.spawn(self._finish(operation, begun), "start")
        else:
            _ = self._spawn(self._finish(operation, begun), "operation")

    async def _finish(self, operation: Operation, later: Later) -> None:
        try:
            answer = await later()
        except Exception as error:  # noqa: BLE001 - `as_error` tells ours from the unexpected, which it logs
            self._fail(operation, as_error(error, where="edge"))
        else:
            self._answer(operation, answer)

    def _answer(self, operation: Operation, answer: Answer) -> None:
        self._count(operation, "ok")
        self._apply(self._session.succeeded(operation, answer.result))
        answer.then()

    def _fail(self, operation: Operation, error: FactoryChainError) -> None:
        self._count(operation, error.reason)
        self._apply(self._session.failed(operation, error))

    def _count(self, operation: Operation, outcome: str) -> None:
        name = getattr(operation, "method", type(operation).__name__)
        _operations.add(1, {"op": name, "outcome": outcome})

    # --- auth ----------------------------------------------------------------------------------

    async def _authenticate(self, auth: Auth) -> None:
        try:
            user = await self._shared.verifier.verify(auth.token)
            if self._feeds is None and not await self._admit(user.principal):
                return
            outputs = self._session.verified(auth, user.principal, user.expires_at_s)
        except Exception as error:  # noqa: BLE001 - `as_error` tells ours from the unexpected, which it logs
            outputs = self._session.unverified(auth, as_error(error, where="edge"))
        self._apply(outputs)
        self._schedule()

    async def _admit(self, principal: Principal) -> bool:
        self._place = self._shared.counts.take(principal)
        if self._place is None:
            self._apply(self._session.too_many_connections())
            return False
        self._connection = await self._shared.connect(principal)
        limit = self._session.limits.subscriptions
        self._feeds = Feeds(principal, self._shared.hub, self._outbox, limit, self._on_stop)
        return True

    def _on_stop(self, why: StopReason) -> None:
        self._apply(self._session.stopped(why))

    # --- writing -------------------------------------------------------------------------------

    async def _write(self) -> None:
        outbox, transport = self._outbox, self._transport
        try:
            while True:
                frame = outbox.next()
                if frame is not None:
                    kind = WSMsgType.PONG if isinstance(frame, Pong) else WSMsgType.TEXT
                    crash_point("bridge.socket.writing")
                    await transport.send_frame(frame, kind)
                    outbox.done(len(frame))
                elif outbox.closed:
                    return
                else:
                    await outbox.wait()
        except ConnectionError:
            outbox.close()  # the reader learns of it, too

    # --- time ----------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        in_s = self._session.tick_in_s()
        if in_s is not None:
            self._tick = asyncio.get_running_loop().call_later(in_s, self._on_tick)

    def _on_tick(self) -> None:
        self._apply(self._session.tick())
        self._schedule()

    # --- ending --------------------------------------------------------------------------------

    def notify_drain(self, reconnect_after_ms: int) -> None:
        """The server will stop; tell the client when to come back."""
        self._apply(self._session.draining(reconnect_after_ms))

    def drain(self) -> None:
        """It is this socket's turn to go."""
        self._apply(self._session.drained())

    async def _close(self, close: Close) -> None:
        """Send what is queued, say why, wait for the answer; cut the connection if none comes."""
        _closes.add(1, {"code": int(close.code)})
        # The writer is not cancelled: aiohttp's writers wait for one future, which would be cancelled
        # for all of them.
        if close.at_once:
            self._outbox.clear()
        self._outbox.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                if self._writer is not None:
                    await asyncio.wait({self._writer})
                await self._transport.say_close(close.code, close.reason)
                await self._read_out.wait()
                if self._broken:
                    # The rest of a frame that is too big arrives and is thrown away: closing now
                    # would answer it with a reset, which can overtake the close frame.
                    await asyncio.sleep(LINGER_S)
        except (TimeoutError, ConnectionError):
            log.debug("a client did not answer a close", code=int(close.code))
        finally:
            self._transport.abort()

    async def _part(self) -> None:
        """The reader has ended: answer the client's close, or let the close in hand finish."""
        if self._closing is not None:
            await asyncio.wait({self._closing})
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._transport.close(drain=False)
        except (TimeoutError, ConnectionError):
            self._transport.abort()

    def _release(self) -> None:
        """Give back everything; nothing of the socket is delivered or counted after this."""
        self._session.lost()
        if self._tick is not None:
            self._tick.cancel()
        if self._feeds is not None:
            self._feeds.close()
        if self._connection is not None:
            self._connection.close()
        if self._place is not None:
            self._place.release()
        if self._closing is None:
            self._outbox.close()
            self._outbox.clear()
        for task in self._ends_with_socket - {self._writer}:
            task.cancel()

    def _spawn(self, coro: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._shared.tasks.spawn(coro, name)
        self._ends_with_socket.add(task)
        task.add_done_callback(self._ends_with_socket.discard)
        return task
