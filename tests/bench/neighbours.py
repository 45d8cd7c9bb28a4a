"""What quiet users notice of hostile ones: the latency of their events with these and without.

The same quiet runs go on all the time; hostile users come and go, so that both halves of the comparison
had the same machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from tests.bench.figures import Latency
from tests.bench.hostile_users import USERS
from tests.bench.product import BenchSocket, bench_sockets
from tests.e2e.chain import Chain

QUIET_USERS = 20
PER_S = 5
_EVENTS = 100_000  # they do not come to their end
_SETTLED_S = 2.0
_TURNS = 2


@dataclass(slots=True)
class Heard:
    """What quiet users heard while something lasted."""

    seconds: float = 0.0
    taken: list[float] = field(default_factory=list)

    @property
    def latency(self) -> Latency:
        """From `ctx.think` to the socket."""
        return Latency.of(self.taken)

    @property
    def share(self) -> float:
        """Events that came, of those that 5 a second would be."""
        return len(self.taken) / (self.seconds * QUIET_USERS * PER_S)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The comparison."""

    alone: Heard
    beside: Heard
    harm: dict[str, dict[str, int]]
    """By kind of hostile user, how often their runs ended in which way."""

    @property
    def ratio(self) -> float:
        """Of the p99s."""
        return self.beside.latency.p99_ms / self.alone.latency.p99_ms


async def neighbours(chain: Chain, *, seconds: float) -> Neighbours:
    """So many seconds without hostile users, and as many with them, in turns."""
    alone, beside = Heard(), Heard()
    harm: dict[str, dict[str, int]] = {}
    async with _quiet_users(chain) as listen:
        for _ in range(_TURNS):
            await asyncio.sleep(_SETTLED_S)
            await listen(alone, seconds / _TURNS)
            async with _hostile_users(chain, harm):
                await asyncio.sleep(_SETTLED_S)
                await listen(beside, seconds / _TURNS)
    return Neighbours(alone, beside, harm)


Listen = Callable[[Heard, float], Awaitable[None]]


@contextlib.asynccontextmanager
async def _quiet_users(chain: Chain) -> AsyncIterator[Listen]:
    """Users with a run each that says something five times a second."""
    heard: list[Heard] = []

    async def user(socket: BenchSocket) -> None:
        await socket.start("bench-stamps", f"{_EVENTS}:{1000 // PER_S}")
        async for now, event in socket.events():
            if event["type"] == "agent_thinking" and heard:
                data = event["data"]
                assert isinstance(data, dict)
                heard[-1].taken.append(now - int(data["text"]) / 1e9)
            assert event["type"] in ("agent_started", "agent_thinking"), event

    async def listen(to: Heard, seconds: float) -> None:
        heard.append(to)
        began = time.monotonic()
        await asyncio.sleep(seconds)
        to.seconds += time.monotonic() - began
        heard.pop()

    async with bench_sockets(chain, QUIET_USERS, "quiet") as sockets, asyncio.TaskGroup() as group:
        users = [group.create_task(user(each)) for each in sockets]
        yield listen
        for each in users:
            each.cancel()


@contextlib.asynccontextmanager
async def _hostile_users(chain: Chain, harm: dict[str, dict[str, int]]) -> AsyncIterator[None]:
    """They are there inside the block, and what became of them is in `harm` after it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.hostile_users",
        chain.state.edge,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for agent in USERS:
            process.stdin.write(f"{chain.token(f'hostile-{agent}')}\n".encode())
        assert await process.stdout.readline() == b"there\n"
        yield
        process.stdin.close()
        _add(harm, json.loads(await process.stdout.readline()))
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _add(harm: dict[str, dict[str, int]], more: dict[str, dict[str, int]]) -> None:
    for agent, became in more.items():
        known = harm.setdefault(agent, {})
        for what, times in became.items():
            known[what] = known.get(what, 0) + times
