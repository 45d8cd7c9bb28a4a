"""What a user of the product waits for, measured on real sockets against `factorychain up`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import orjson

from tests.bench.figures import Latency
from tests.e2e.chain import Chain
from tests.e2e.sockets import ENDINGS

_THREADS = 32


@dataclass(frozen=True, slots=True)
class Throughput:
    """Events that reached their sockets, and how long that took."""

    events: int
    seconds: float

    @property
    def per_s(self) -> float:
        """Events a second."""
        return self.events / self.seconds


class BenchSocket:
    """A socket that does little: the client shares the machine with what is measured."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self._ws = ws
        self._next_id = 0

    async def start(self, agent: str, text: str) -> None:
        """Sends a start; the answers are for `frames`."""
        self._next_id += 1
        frame = {
            "op": "start",
            "id": str(self._next_id),
            "agent": agent,
            "input": {"text": text},
            # A socket may follow 64 threads: take turns among fewer.
            "thread": f"bench-{self._next_id % _THREADS}",
        }
        await self._ws.send_str(orjson.dumps(frame).decode())

    async def events(self) -> AsyncIterator[tuple[float, dict[str, object]]]:
        """Every event from now on with the monotonic time of its arrival; a refusal is an error."""
        async for message in self._ws:
            now = time.monotonic()
            frame = orjson.loads(message.data)
            if "error" in frame:
                raise AssertionError(frame)
            if frame["op"] == "events":
                for event in frame["events"]:
                    yield now, event


@contextlib.asynccontextmanager
async def bench_sockets(chain: Chain, count: int, name: str) -> AsyncIterator[list[BenchSocket]]:
    """One socket for each of `count` users."""
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        contextlib.AsyncExitStack() as stack,
    ):
        sockets = []
        for index in range(count):
            url = f"{chain.state.edge}/v1/ws"
            ws = await stack.enter_async_context(
                session.ws_connect(url, protocols=["factorychain.v1.json"], max_msg_size=0)
            )
            await ws.send_json({"op": "auth", "token": chain.token(f"{name}-{index}")})
            assert (await ws.receive_json())["op"] == "ready"
            sockets.append(BenchSocket(ws))
        yield sockets


async def submit_to_first_event(chain: Chain, *, users: int, runs_each: int) -> Latency:
    """From sending `start` to the first event on the socket; each user one run after the other."""
    taken: list[float] = []

    async def user(socket: BenchSocket) -> None:
        for index in range(runs_each + 1):
            started = await start_short(socket)
            if index:  # the first of each user is warm-up
                taken.append(started.first_event_s)

    async with bench_sockets(chain, users, f"first{users}") as sockets:
        await asyncio.gather(*map(user, sockets))
    return Latency.of(taken)


async def emitted_to_socket(chain: Chain, *, users: int, thoughts: int) -> Latency:
    """From the agent's `ctx.think` to the socket, 50 events a second and user."""
    taken: list[float] = []

    async def user(socket: BenchSocket) -> None:
        await socket.start("bench-stamps", f"{thoughts}:20")
        async for now, event in socket.events():
            if event["type"] == "agent_thinking":
                data = event["data"]
                assert isinstance(data, dict)
                taken.append(now - int(data["text"]) / 1e9)
            elif event["type"] in ENDINGS:
                return

    async with bench_sockets(chain, users, "stamps") as sockets:
        await asyncio.gather(*map(user, sockets))
    return Latency.of(taken)


async def throughput(chain: Chain, *, users: int, thoughts: int) -> Throughput:
    """`users` runs at once, each `thoughts` thoughts, none merged, every one on its socket in order."""
    got = 0

    async def user(socket: BenchSocket) -> None:
        nonlocal got
        await socket.start("bench-stamps", str(thoughts))
        expected = 1
        async for _, event in socket.events():
            assert event["seq"] == expected, "an event is missing or repeated"
            expected += 1
            got += event["type"] == "agent_thinking"
            if event["type"] in ENDINGS:
                assert event["type"] == "agent_completed", event
                return

    async with bench_sockets(chain, users, "flood") as sockets:
        began = time.perf_counter()
        await asyncio.gather(*map(user, sockets))
        seconds = time.perf_counter() - began
    assert got == users * thoughts
    return Throughput(got, seconds)


@dataclass(frozen=True, slots=True)
class Started:
    """Seconds from sending a start to what came of it."""

    first_event_s: float
    first_line_s: float
    """To the first line of the agent's own code."""


async def start_short(socket: BenchSocket) -> Started:
    """Starts a run that does nothing; returns when it has ended."""
    began = time.monotonic()
    await socket.start("bench-short", "go")
    first: float | None = None
    async for now, event in socket.events():
        if first is None:
            first = now - began
        if event["type"] in ENDINGS:
            assert event["type"] == "agent_completed", event
            data = event["data"]
            assert isinstance(data, dict)
            return Started(first, int(data["output"]) / 1e9 - began)
    raise AssertionError("the socket was closed")
