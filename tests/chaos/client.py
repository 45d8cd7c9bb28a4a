"""A client of the chain's WebSocket that survives losing it: replaces the socket, resumes, asks again.

Written against the protocol's description and nothing of the product. Invariant: a thread is always
resumed from the last seq that came, and everything that comes is in the journal before it is looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp

from tests.chaos.journal import Journal

Frame = dict[str, Any]
_REPLY_S = 75.0
_READY_S = 15.0


class Lost(Exception):
    """The socket broke before the reply came."""


class Client:
    """One socket at a time, for ever; threads that are followed on it."""

    def __init__(
        self,
        edges: Sequence[str],
        token: str,
        journal: Journal,
        reader: str,
        chance: random.Random,
    ) -> None:
        """`edges`: each socket is to any of them."""
        self.journal = journal
        self._urls = [f"{each}/v1/ws" for each in edges]
        self._token, self._reader, self._chance = token, reader, chance
        self._positions: dict[str, tuple[int, int]] = {}
        """Last seq and epoch of each thread that is followed."""
        self._ids = itertools.count(1)
        self._replies: dict[str, asyncio.Future[Frame]] = {}
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._ready = asyncio.Event()
        self._on_event: list[Callable[[str, Frame], None]] = []
        self._caught_up: dict[str, asyncio.Event] = {}

    def on_event(self, told: Callable[[str, Frame], None]) -> None:
        """`told(thread, event)` of everything that comes."""
        self._on_event.append(told)

    def last(self, thread: str) -> int:
        """Last seq of a thread."""
        return self._positions[thread][0]

    async def connected(self) -> None:
        """Return when there is a socket on which every thread is followed."""
        await self._ready.wait()

    async def follow(self, thread: str) -> None:
        """Follow a thread from its beginning on, on this socket and on those after it."""
        self._positions[thread] = (0, 0)
        self._caught_up[thread] = asyncio.Event()
        with contextlib.suppress(Lost):  # then the next socket does
            await self._subscribe(thread)

    async def leave(self, thread: str) -> None:
        """Follow it no longer."""
        del self._positions[thread], self._caught_up[thread]
        with contextlib.suppress(Lost):
            await self.call("unsubscribe", thread=thread)

    async def caught_up(self, thread: str) -> None:
        """Return when the end of a thread was reached once."""
        await self._caught_up[thread].wait()

    def drop(self) -> None:
        """Lose the socket as a network does, or leave it."""
        if self._ws is None:
            return
        transport = self._ws.get_extra_info("transport")
        if transport is not None and self._chance.random() < 0.7:
            transport.abort()
        else:
            self._closing = asyncio.ensure_future(self._ws.close())

    async def connect_for_ever(self) -> None:
        """Keep a socket open."""
        async with aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, OSError, Lost, TimeoutError):
                    await self._one_socket(session)
                self._lose()
                await asyncio.sleep(self._chance.uniform(0.05, 0.3))

    async def call(self, op: str, **fields: object) -> Frame:
        """Sends an operation; its reply.

        Raises:
            Lost: the socket broke before, or answered nothing for long.
        """
        if self._ws is None:
            raise Lost
        frame_id = str(next(self._ids))
        reply: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._replies[frame_id] = reply
        try:
            await self._ws.send_json({"op": op, "id": frame_id, **fields})
            async with asyncio.timeout(
                _REPLY_S
            ):  # `wait_for` swallows a cancel that comes with the reply
                return await reply
        except (ConnectionError, aiohttp.ClientError):
            # Its reader has not heard of it yet: who asks again at once must wait for the next socket.
            self._lose()
            raise Lost from None
        except TimeoutError:
            self.journal.note("silent", op=op, **fields)
            self.drop()
            raise Lost from None
        finally:
            self._replies.pop(frame_id, None)

    async def _one_socket(self, session: aiohttp.ClientSession) -> None:
        async with asyncio.timeout(_READY_S):
            ws = await session.ws_connect(
                self._chance.choice(self._urls),
                protocols=["factorychain.v1.json"],
                max_msg_size=0,
                heartbeat=20,
            )
        async with ws:
            await ws.send_json({"op": "auth", "token": self._token})
            first = await ws.receive(timeout=_READY_S)
            if first.type is not aiohttp.WSMsgType.TEXT or first.json()["op"] != "ready":
                return
            self._ws = ws
            reading = asyncio.create_task(self._read(ws))
            try:
                for thread in list(self._positions):
                    await self._subscribe(thread)
                if self._ws is ws:  # else it broke right behind the last reply
                    self._ready.set()
                await reading
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _subscribe(self, thread: str) -> None:
        if thread not in self._positions:
            return
        after, epoch = self._positions[thread]
        self.journal.note("joined", reader=self._reader, thread=thread, after=after)
        reply = await self.call("subscribe", thread=thread, after=after, epoch=epoch)
        if "error" in reply:  # the next socket asks again
            self.drop()
            raise Lost

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for message in ws:
            if message.type is aiohttp.WSMsgType.TEXT:
                self.journal.frame(self._reader, message.data)
                self._take(message.json())
        self._lose()

    def _take(self, frame: Frame) -> None:
        if frame["op"] == "reply":
            reply = self._replies.pop(frame["id"], None)
            if reply is not None and not reply.done():
                reply.set_result(frame)
        elif frame["op"] == "reset":
            self._positions[frame["thread"]] = (0, frame["epoch"])
        elif frame["op"] == "caught_up" and frame["thread"] in self._caught_up:
            self._caught_up[frame["thread"]].set()
        elif frame["op"] == "events" and frame["thread"] in self._positions:
            for event in frame["events"]:
                self._positions[frame["thread"]] = (event["seq"], frame["epoch"])
                for told in self._on_event:
                    told(frame["thread"], event)

    def _lose(self) -> None:
        self._ready.clear()
        self._ws = None
        replies, self._replies = self._replies, {}
        for reply in replies.values():
            if not reply.done():
                reply.set_exception(Lost())
