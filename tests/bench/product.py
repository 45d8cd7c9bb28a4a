"""What a user of the product waits for, measured on real sockets against `factorychain up`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import orjson

from tests.bench.figures import Latency
from tests.e2e.chain import Chain
from tests.e2e.sockets import ENDINGS

_THREADS = 32
_WARM_UP = 20
REST_ROUNDS = 200
REST_S = 0.02


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
        """Every event from now on with the time of its arrival; a refusal is an error."""
        async for message in self._ws:
            now = time.perf_counter()
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
            first = await _first_event(socket)
            if index:  # the first of each user is warm-up
                taken.append(first)

    async with bench_sockets(chain, users, f"first{users}") as sockets:
        await asyncio.gather(*map(user, sockets))
    return Latency.of(taken)


@dataclass(frozen=True, slots=True)
class Paired:
    """Two measurements that took turns, so that both had the same machine."""

    product: Latency
    floor: Latency

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return self.product.p50_ms / self.floor.p50_ms


async def first_event_from_rest(chain: Chain, call: Callable[[], Awaitable[object]]) -> Paired:
    """One user's starts and calls of the floor, taking turns with a pause before each.

    A user does not start a run the moment that the last one has ended. What has rested pays for being
    woken, hop by hop, in the product and in the floor; in a closed loop only the floor is never cold.
    """
    product: list[float] = []
    floor: list[float] = []
    async with bench_sockets(chain, 1, "rested") as (socket,):
        for index in range(REST_ROUNDS + _WARM_UP):
            await asyncio.sleep(REST_S)
            began = time.perf_counter()
            await call()
            called = time.perf_counter() - began
            await asyncio.sleep(REST_S)
            first = await _first_event(socket)
            if index >= _WARM_UP:
                floor.append(called)
                product.append(first)
    return Paired(Latency.of(product), Latency.of(floor))


async def emitted_to_socket(chain: Chain, *, users: int, thoughts: int) -> Latency:
    """From the agent's `ctx.think` to the socket, 50 events a second and user."""
    taken: list[float] = []

    async def user(socket: BenchSocket) -> None:
        await socket.start("bench-stamps", f"{thoughts}:20")
        async for _, event in socket.events():
            if event["type"] == "agent_thinking":
                data = event["data"]
                assert isinstance(data, dict)
                taken.append((time.monotonic_ns() - int(data["text"])) / 1e9)
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


async def _first_event(socket: BenchSocket) -> float:
    """Seconds from sending a start to its first event; returns when the run has ended."""
    began = time.perf_counter()
    await socket.start("bench-short", "go")
    first: float | None = None
    async for now, event in socket.events():
        if first is None:
            first = now - began
        if event["type"] in ENDINGS:
            break
    assert first is not None
    return first
