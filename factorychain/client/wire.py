"""One client's connection, kept up for as long as the client lives.

Invariant: a request that was made is answered exactly once, by its reply or by an error, across any
number of connections. All requests may be sent again: a start carries its `request_id`, the others
read, or end in the same state.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import orjson

from factorychain.client.connecting import (
    BAD_TOKEN,
    Backoff,
    Pace,
    Tokens,
    TokenSource,
    away,
    fatal,
)
from factorychain.client.dialing import HEARTBEAT_S, Unreachable, dial
from factorychain.client.events import JsonObject, Ready, error_from_json, integer
from factorychain.client.listening import Listening
from factorychain.errors import FactoryChainError

READY_TIMEOUT_S = 10.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Request:
    frame: JsonObject
    answer: asyncio.Future[JsonObject]
    on_result: Callable[[JsonObject], None]


class Wire:
    """Connects, authenticates, follows what is listened to, and carries requests."""

    def __init__(
        self, url: str, token: TokenSource, listening: Listening, give_up_after_s: float
    ) -> None:
        self.url = url
        self.ready: Ready | None = None
        self._tokens = Tokens(token)
        self._listening = listening
        self._give_up_after_s = give_up_after_s
        self._requests: dict[str, _Request] = {}
        self._next_id = 0
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._pace = Pace()
        self._backoff = Backoff(random.random)
        self._asked_ms: int | None = None
        self._first: asyncio.Future[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._helpers: set[asyncio.Task[None]] = set()
        self._ended: FactoryChainError | None = None
        self.connections = 0
        """How often it has connected."""

    # --- life ----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect for the first time.

        Raises:
            TokenInvalid, TokenExpired: The token is refused.
            ChainDegraded: Nothing answers there.
        """
        self._first = asyncio.get_running_loop().create_future()
        self._running = asyncio.create_task(self._run(), name="factorychain client")
        try:
            await asyncio.shield(self._first)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let go of everything. Runs go on at the server. May be called twice."""
        running, self._running = self._running, None
        for task in [*self._helpers, *([running] if running else [])]:
            task.cancel()
            await asyncio.wait({task})
        self._end(away(self.url, "the client was closed"))

    async def cut(self) -> None:
        """Drop the connection as a network would; it is made again at once. For tests and demos."""
        if self._ws is not None:
            await self._ws.close()

    def _end(self, error: FactoryChainError) -> None:
        self._ended = self._ended or error
        for request in self._requests.values():
            if not request.answer.done():
                request.answer.set_exception(error)
        self._requests.clear()
        for listener in self._listening:
            listener.end(error)

    # --- requests ------------------------------------------------------------------------------

    async def request(
        self, frame: JsonObject, on_result: Callable[[JsonObject], None] = lambda _: None
    ) -> JsonObject:
        """The result of one operation. `on_result` runs before any frame after the reply is looked at.

        Raises:
            FactoryChainError: It was refused, or the connection is gone for good.
        """
        if self._ended is not None:
            raise self._ended
        self._next_id += 1
        id = str(self._next_id)
        answer: asyncio.Future[JsonObject] = asyncio.get_running_loop().create_future()
        request = _Request({**frame, "id": id}, answer, on_result)
        self._requests[id] = request
        try:
            if self.ready is not None:
                await self._send(request.frame)
            return await answer
        finally:
            self._requests.pop(id, None)

    def subscription(self, thread: str) -> tuple[JsonObject, Callable[[JsonObject], None]]:
        """A subscription for all who listen to the thread now: its frame, and what its reply does."""
        listeners = self._listening.waiting(thread)
        seq, epoch = self._listening.position(thread)

        def on_result(found: JsonObject) -> None:
            self._listening.delivers(thread, listeners, integer(found, "last"))

        return {"op": "subscribe", "thread": thread, "after": seq, "epoch": epoch}, on_result

    async def _send(self, frame: JsonObject) -> None:
        await self._pace.wait()
        if self._ws is None:
            return  # sent again on the next connection
        try:
            await self._ws.send_str(orjson.dumps(frame).decode())
        except ConnectionError:
            return  # the reader notices, too

    def send_soon(self, frame: JsonObject) -> None:
        """Send a frame whose reply nobody waits for."""
        self._help(self._send(frame))

    def _help(self, coro: Awaitable[None]) -> None:
        task = asyncio.ensure_future(coro)
        self._helpers.add(task)
        task.add_done_callback(self._helpers.discard)

    # --- connections ---------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            async with aiohttp.ClientSession() as http:
                await self._stay_connected(http)
        except FactoryChainError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            failure = away(self.url, type(error).__name__)
            failure.__cause__ = error
            self._fail(failure)

    def _fail(self, error: FactoryChainError) -> None:
        self._end(error)
        if self._first is not None and not self._first.done():
            self._first.set_exception(error)

    async def _stay_connected(self, http: aiohttp.ClientSession) -> None:
        lost_at_s = time.monotonic()
        while True:
            began_s, before = time.monotonic(), self.connections
            cause = await self._connect_once(http)
            now_s = time.monotonic()
            good_for_s = now_s - began_s if self.connections > before else 0.0
            if good_for_s:
                lost_at_s = now_s
            asked_ms, self._asked_ms = self._asked_ms, None
            wait_s = self._backoff.next_s(good_for_s, asked_ms)
            if now_s + wait_s - lost_at_s > self._give_up_after_s:
                raise away(self.url, cause)
            await asyncio.sleep(wait_s)

    async def _connect_once(self, http: aiohttp.ClientSession) -> str:
        """One connection from its beginning to its end; why it ended."""
        try:
            ws = await dial(http, self.url)
        except Unreachable as error:
            return str(error)
        self._ws = ws
        try:
            return await self._converse(ws)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return str(error) or type(error).__name__  # of whoever gives tokens, too
        finally:
            self._ws, self.ready = None, None
            self._listening.disconnected()
            await ws.close()

    async def _converse(self, ws: aiohttp.ClientWebSocketResponse) -> str:
        self._pace = Pace()
        await self._authenticate()
        while True:
            try:
                async with asyncio.timeout(None if self.ready else READY_TIMEOUT_S):
                    message = await ws.receive()
            except TimeoutError:
                return "no answer to auth"
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            self._on_frame(orjson.loads(message.data))
        reason = message.extra if message.type is aiohttp.WSMsgType.CLOSE else ""
        self._check_close(ws.close_code or 1006, str(reason or ""))
        return f"closed with {ws.close_code}"

    def _check_close(self, code: int, reason: str) -> None:
        error = fatal(code, reason)
        if error is None:
            return
        if code != BAD_TOKEN or not self._tokens.try_another():
            raise error

    async def _authenticate(self) -> None:
        await self._send({"op": "auth", "token": await self._tokens.get()})

    async def _renew(self) -> None:
        try:
            await self._authenticate()
        except Exception as error:  # noqa: BLE001 - without a new token the server closes, then it is tried again
            log.warning("no new token: %s", type(error).__name__)

    # --- frames --------------------------------------------------------------------------------

    def _on_frame(self, frame: JsonObject) -> None:
        op = frame.get("op")
        if op == "events":
            self._listening.on_events(frame)
        elif op == "reply":
            self._on_reply(frame)
        elif op == "caught_up":
            self._listening.on_caught_up(frame)
        elif op == "reset":
            self._listening.on_reset(frame)
        elif op == "ready":
            self._on_ready(frame)
        elif op == "token_expiring" and self._tokens.renewable:
            self._help(self._renew())
        elif op == "closing":
            asked = frame.get("reconnect_after_ms")
            self._asked_ms = asked if isinstance(asked, int) else None

    def _on_reply(self, frame: JsonObject) -> None:
        request = self._requests.pop(str(frame.get("id")), None)
        if request is None or request.answer.done():
            return
        error, result = frame.get("error"), frame.get("result")
        if isinstance(error, dict):
            request.answer.set_exception(error_from_json(error))
            return
        found = result if isinstance(result, dict) else {}
        request.on_result(found)
        request.answer.set_result(found)

    def _on_ready(self, frame: JsonObject) -> None:
        again = self.ready is not None
        limits, heartbeat_s = frame.get("limits"), frame.get("heartbeat_s")
        self.ready = Ready(
            str(frame.get("tenant", "")),
            str(frame.get("user", "")),
            str(frame.get("expires_at", "")),
            float(heartbeat_s) if isinstance(heartbeat_s, int | float) else HEARTBEAT_S,
            limits if isinstance(limits, dict) else {},
        )
        self._tokens.accepted()
        if again:
            return  # the token was renewed
        self.connections += 1
        self._pace.allow(self.ready.limits)
        self._help(self._resume())

    async def _resume(self) -> None:
        """What was followed is followed again, then what has no answer yet is asked again."""
        for thread in self._listening.threads():
            self._next_id += 1
            id = str(self._next_id)
            frame, on_result = self.subscription(thread)
            self._requests[id] = _Request({**frame, "id": id}, _ignored(), on_result)
        for request in tuple(self._requests.values()):
            await self._send(request.frame)
        if self._first is not None and not self._first.done():
            self._first.set_result(None)


def _ignored() -> asyncio.Future[JsonObject]:
    """A future that nobody waits for; its exception is nobody's either."""
    found: asyncio.Future[JsonObject] = asyncio.get_running_loop().create_future()
    found.add_done_callback(lambda done: done.cancelled() or done.exception())
    return found
