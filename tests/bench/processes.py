"""What a process for each run costs: starts a second, memory, and a thousand of them at once."""

from __future__ import annotations

import asyncio
import contextlib
import re
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.product import BenchSocket, bench_sockets, start_short
from tests.e2e.chain import Chain
from tests.e2e.sockets import ENDINGS

USERS = 500
RUNS_EACH = 2
_LEFT_WITHIN_S = 120.0


async def runs_per_s(chain: Chain, *, users: int, seconds: float) -> float:
    """Runs that do nothing, each user's one after the other, from start to ending on the socket."""
    ended = 0
    until = time.monotonic() + seconds

    async def user(socket: BenchSocket) -> None:
        nonlocal ended
        while time.monotonic() < until:
            await start_short(socket)
            ended += 1

    async with bench_sockets(chain, users, "rate") as sockets:
        began = time.monotonic()
        await asyncio.gather(*map(user, sockets))
        return ended / (time.monotonic() - began)


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one run's process, in bytes; the median over all."""

    private: float
    pss: float

    @classmethod
    def of(cls, rollups: Sequence[str]) -> Memory:
        """From contents of `/proc/PID/smaps_rollup`."""
        private = [_kb(each, "Private_Dirty") + _kb(each, "Private_Clean") for each in rollups]
        pss = [_kb(each, "Pss") for each in rollups]
        return cls(statistics.median(private) * 1024, statistics.median(pss) * 1024)


@dataclass(frozen=True, slots=True)
class AtOnce:
    """Many runs that were all there at the same moment."""

    completed: int
    other_endings: tuple[str, ...]
    there_s: float
    """From the first start until the last agent's code ran."""
    left_s: float
    """From the moment that they were let go until the last ending was on its socket."""
    memory: Memory
    machine_bytes: float
    """What the whole machine's available memory shrank by, for each."""


async def at_once(chain: Chain) -> AtOnce:
    """`RUNS_EACH` runs of each of `USERS` users, started together, let go when all are there."""
    count = USERS * RUNS_EACH
    endings: list[dict[str, object]] = []
    there = asyncio.Semaphore(0)

    async def user(socket: BenchSocket) -> None:
        left = RUNS_EACH
        async for _, event in socket.events():
            if event["type"] == "agent_thinking":
                there.release()
            elif event["type"] in ENDINGS:
                endings.append(event)
                there.release()  # one that failed will not come
                left -= 1
                if not left:
                    return

    async with bench_sockets(chain, USERS, "many") as sockets, _gate() as gate:
        before = _available_bytes()
        users = [asyncio.create_task(user(each)) for each in sockets]
        began = time.monotonic()
        await asyncio.gather(
            *(each.start("bench-gate", str(gate.pid)) for each in sockets for _ in range(RUNS_EACH))
        )
        for _ in range(count):
            await there.acquire()
        there_s = time.monotonic() - began
        used = before - _available_bytes()
        gate.terminate()
        await gate.wait()
        let_go = time.monotonic()
        async with asyncio.timeout(_LEFT_WITHIN_S):
            await asyncio.gather(*users)
        left_s = time.monotonic() - let_go
    outputs, others = _sorted_out(endings)
    return AtOnce(len(outputs), tuple(others), there_s, left_s, Memory.of(outputs), used / count)


def _sorted_out(endings: list[dict[str, object]]) -> tuple[list[str], list[str]]:
    """Outputs of those that completed, and what became of the others."""
    outputs, others = [], []
    for each in endings:
        data = each["data"]
        assert isinstance(data, dict)
        if each["type"] == "agent_completed":
            outputs.append(str(data["output"]))
        else:
            others.append(f"{each['type']} {data.get('reason')}")
    return outputs, others


@contextlib.asynccontextmanager
async def _gate() -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that does nothing until it is told to end."""
    gate = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import sys; sys.stdin.read()", stdin=asyncio.subprocess.PIPE
    )
    try:
        yield gate
    finally:
        if gate.returncode is None:
            gate.terminate()
            await gate.wait()


def _kb(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    assert found, f"no {name} in {text!r}"
    return int(found[1])


def _available_bytes() -> int:
    return _kb(Path("/proc/meminfo").read_text(), "MemAvailable") * 1024
