"""A user who never gives up: starts run after run on sockets that break, and keeps what was seen.

Written against the protocol's description and nothing of the product. A start whose reply was lost is
repeated with the same `request_id` until it is answered; a socket that breaks is replaced and the
threads are resumed from the last seq. What breaks a promise on the way is noted, not raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable
from typing import Any

import aiohttp

from tests.e2e.sockets import ENDINGS, Frame

_REPLY_S = 75.0
_REFUSALS = frozenset(
    {"CHAIN_DEGRADED", "USER_ENGINE_LIMIT", "THREAD_BUSY", "OPERATIONS_LIMIT", "CAPACITY"}
)


class Lost(Exception):
    """The socket broke before the reply came."""


class Seen:
    """What came of one thread, over all sockets."""

    def __init__(self) -> None:
        self.epoch = 0
        self.events: list[Frame] = []

    @property
    def last(self) -> int:
        return int(self.events[-1]["seq"]) if self.events else 0


class Witness:
    """One user with a run in every one of their threads."""

    agent = "tells"
    on_busy = "reject"

    def __init__(
        self, edge: Callable[[], str], token: str, name: str, *, threads: int, story: str
    ) -> None:
        """`edge` says where the edge is now; `story` is the rest of the agent's input."""
        self.name = name
        self.canary = f"canary-{name}-"
        self.seen = {f"{name}-{index}": Seen() for index in range(threads)}
        self.admitted: dict[str, str] = {}
        """Thread by run."""
        self.broken: list[str] = []
        """Promises that were not kept."""
        self.refusals: dict[str, int] = {}
        self._edge = edge
        self._token = token
        self._story = story
        self._ids = itertools.count(1)
        self._replies: dict[str, asyncio.Future[Frame]] = {}
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._ready = asyncio.Event()
        self._changed = asyncio.Condition()
        self._ended: dict[str, int] = {}

    # --- the socket -------------------------------------------------------------------------

    async def connect_for_ever(self) -> None:
        """Keep a socket open and every thread subscribed."""
        async with aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, OSError, Lost, TimeoutError):
                    await self._one_socket(session)
                self._lose()
                await asyncio.sleep(random.uniform(0.05, 0.3))

    async def _one_socket(self, session: aiohttp.ClientSession) -> None:
        url, protocols = f"{self._edge()}/v1/ws", ["factorychain.v1.json"]
        async with session.ws_connect(url, protocols=protocols, max_msg_size=0) as ws:
            await ws.send_json({"op": "auth", "token": self._token})
            first = await ws.receive(timeout=15)
            if first.type is not aiohttp.WSMsgType.TEXT or first.json()["op"] != "ready":
                return
            self._ws = ws
            reading = asyncio.create_task(self._read(ws))
            try:
                await self._resume()
                if self._ws is ws:  # else it broke right behind the last reply
                    self._ready.set()
                await reading
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for message in ws:
            if message.type is aiohttp.WSMsgType.TEXT:
                if "canary-" in message.data.replace(self.canary, ""):
                    self.broken.append(f"{self.name} saw someone else's canary: {message.data}")
                await self._take(message.json())
        self._lose()

    async def _resume(self) -> None:
        for thread, seen in self.seen.items():
            reply = await self._call("subscribe", thread=thread, after=seen.last, epoch=seen.epoch)
            if "error" in reply:
                raise Lost

    def _lose(self) -> None:
        self._ready.clear()
        self._ws = None
        replies, self._replies = self._replies, {}
        for reply in replies.values():
            if not reply.done():
                reply.set_exception(Lost())

    async def _call(self, op: str, **fields: Any) -> Frame:
        if self._ws is None:
            raise Lost
        frame_id = str(next(self._ids))
        reply: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._replies[frame_id] = reply
        try:
            await self._ws.send_json({"op": op, "id": frame_id, **fields})
        except (ConnectionError, aiohttp.ClientError):
            raise Lost from None
        async with asyncio.timeout(
            _REPLY_S
        ):  # `wait_for` swallows a cancel that comes with the reply
            return await reply

    # --- what comes -------------------------------------------------------------------------

    async def _take(self, frame: Frame) -> None:
        if frame["op"] == "reply":
            reply = self._replies.pop(frame["id"], None)
            if reply is not None and not reply.done():
                reply.set_result(frame)
        elif frame["op"] == "reset":
            self.broken.append(f"{self.name} was reset: {frame}")
        elif frame["op"] == "events":
            seen = self.seen[frame["thread"]]
            seen.epoch = frame["epoch"]
            for event in frame["events"]:
                self._note(seen, event)
            async with self._changed:
                self._changed.notify_all()

    def _note(self, seen: Seen, event: Frame) -> None:
        if event["seq"] != seen.last + 1:
            self.broken.append(f"{self.name}: seq {event['seq']} came after {seen.last}")
        seen.events.append(event)
        if event["type"] in ENDINGS:
            self._ended[event["run"]] = self._ended.get(event["run"], 0) + 1

    # --- what the user does -----------------------------------------------------------------

    async def talk(self, thread: str, done: asyncio.Event) -> None:
        """Start a run, see it end, start the next, until `done`."""
        for number in itertools.count():
            if done.is_set():
                return
            run = await self._start(thread, f"{thread}-{number}")
            if run is None:
                await asyncio.sleep(0.3)
                continue
            self.admitted[run] = thread
            async with self._changed:
                while run not in self._ended:
                    await self._changed.wait()

    async def _start(self, thread: str, request: str) -> str | None:
        """The run, or None when it was refused; a start without an answer is repeated as it is."""
        while True:
            await self._ready.wait()
            try:
                reply = await self._call(
                    "start",
                    agent=self.agent,
                    on_busy=self.on_busy,
                    thread=thread,
                    request_id=request,
                    input={"text": f"{self.canary}{request}|{self._story}"},
                )
            except Lost:
                continue
            if "result" in reply:
                return str(reply["result"]["run"])
            reason = reply["error"]["reason"]
            self.refusals[reason] = self.refusals.get(reason, 0) + 1
            if reason not in _REFUSALS:
                self.broken.append(f"{self.name} was refused: {reply['error']}")
            if reason != "CHAIN_DEGRADED":
                return None
            # Nobody may have said no: only the same request again tells whether it was admitted.
            await asyncio.sleep(0.3)

    def waiting_for(self) -> list[str]:
        """Runs that were admitted and have not ended for this user."""
        return [run for run in self.admitted if run not in self._ended]
