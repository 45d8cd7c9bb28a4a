"""A WebSocket client for tests, written against the protocol's description and nothing of the product."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp

ENDINGS = {"agent_completed", "agent_failed", "agent_cancelled"}
Frame = dict[str, Any]


class Closed(Exception):
    """The server has closed the socket."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


class Socket:
    """One authenticated socket. Every frame that came is kept in `frames`, in order."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.frames: list[Frame] = []
        self.texts: list[str] = []
        self.close_code: int | None = None
        self._ids = itertools.count(1)
        self._changed = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.ws:
            if message.type is aiohttp.WSMsgType.TEXT:
                async with self._changed:
                    self.texts.append(message.data)
                    self.frames.append(message.json())
                    self._changed.notify_all()
        async with self._changed:
            self.close_code = self.ws.close_code
            self._changed.notify_all()

    async def wait_for(
        self, wanted: Callable[[Frame], bool], *, since: int = 0, timeout_s: float = 90
    ) -> Frame:
        """The first frame from position `since` on that is wanted.

        Raises:
            Closed: if the socket closes before.
        """
        async with asyncio.timeout(timeout_s):
            position = since
            async with self._changed:
                while True:
                    for frame in self.frames[position:]:
                        if wanted(frame):
                            return frame
                    position = len(self.frames)
                    if self._reader.done() or self.close_code is not None:
                        raise Closed(self.close_code)
                    await self._changed.wait()

    async def closed(self, timeout_s: float = 90) -> int | None:
        """Waits for the server to close; its code."""
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(self._reader)
        return self.close_code

    async def send(self, frame: Frame) -> None:
        """Sends one frame."""
        await self.ws.send_json(frame)

    async def call(self, op: str, **fields: Any) -> Frame:
        """Sends an operation; its reply frame."""
        frame_id = str(next(self._ids))
        since = len(self.frames)
        await self.send({"op": op, "id": frame_id, **fields})
        return await self.wait_for(
            lambda f: f["op"] == "reply" and f.get("id") == frame_id, since=since
        )

    async def result(self, op: str, **fields: Any) -> Frame:
        """The result of an operation that must succeed."""
        reply = await self.call(op, **fields)
        assert "result" in reply, reply
        result: Frame = reply["result"]
        return result

    async def error(self, op: str, **fields: Any) -> Frame:
        """The error of an operation that must fail."""
        reply = await self.call(op, **fields)
        assert "error" in reply, reply
        error: Frame = reply["error"]
        return error

    def events(self, thread: str | None = None) -> list[Frame]:
        """Every event that came, in order of arrival."""
        return [
            event
            for frame in self.frames
            if frame["op"] == "events" and thread in (None, frame["thread"])
            for event in frame["events"]
        ]

    def run_events(self, run: str) -> list[Frame]:
        """Every event of one run."""
        return [event for event in self.events() if event["run"] == run]

    async def ending(self, run: str, timeout_s: float = 90) -> Frame:
        """Waits for the run's ending; the event."""
        await self.wait_for(
            lambda f: (
                f["op"] == "events"
                and any(e["run"] == run and e["type"] in ENDINGS for e in f["events"])
            ),
            timeout_s=timeout_s,
        )
        return next(e for e in self.run_events(run) if e["type"] in ENDINGS)

    async def event(self, run: str, kind: str, timeout_s: float = 90) -> Frame:
        """Waits for the first event of a kind; the event."""
        await self.wait_for(
            lambda f: (
                f["op"] == "events"
                and any(e["run"] == run and e["type"] == kind for e in f["events"])
            ),
            timeout_s=timeout_s,
        )
        return next(e for e in self.run_events(run) if e["type"] == kind)

    async def start(self, agent: str, text: str, **fields: Any) -> Frame:
        """Starts a run; the reply's result."""
        return await self.result("start", agent=agent, input={"text": text}, **fields)


async def asked(socket: Socket, run: str) -> Frame:
    """The question that a run has asked its user."""
    event = await socket.event(run, "input_requested")
    data: Frame = event["data"]
    return data


@contextlib.asynccontextmanager
async def raw_socket(edge: str, **options: Any) -> AsyncIterator[Socket]:
    """A socket that has not said who it is."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            f"{edge}/v1/ws", protocols=["factorychain.v1.json"], max_msg_size=0, **options
        ) as ws,
    ):
        socket = Socket(ws)
        try:
            yield socket
        finally:
            await ws.close()
            with contextlib.suppress(asyncio.CancelledError):
                await socket._reader


@contextlib.asynccontextmanager
async def connected(edge: str, token: str) -> AsyncIterator[Socket]:
    """A socket that is ready."""
    async with raw_socket(edge) as socket:
        await socket.send({"op": "auth", "token": token})
        await socket.wait_for(lambda f: f["op"] == "ready")
        yield socket
