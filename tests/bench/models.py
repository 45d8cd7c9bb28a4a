"""What the model gateway adds to an upstream: to the first token, and to the rate of tokens.

Both are asked by the same client, which takes turns between them, so that both had the same machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from tests.bench.figures import Latency
from tests.bench.product import bench_sockets
from tests.bench.upstream import TOKENS
from tests.e2e.chain import running_chain

DIRECT, THROUGH = "direct", "through the gateway"
_WARM_UP: Final = 20
_ONE, _MANY = TOKENS


@dataclass(frozen=True, slots=True)
class _Server:
    url: str
    key: str


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """Of the upstream itself, and of the same through the gateway."""

    first_token: Mapping[str, Latency]
    tokens_per_s: Mapping[int, Mapping[str, float]]
    """By how many streams there are at once."""

    @property
    def added(self) -> tuple[float, float]:
        """To the first token: p50 and p99 in milliseconds, the difference of each."""
        direct, through = self.first_token[DIRECT], self.first_token[THROUGH]
        return through.p50_ms - direct.p50_ms, through.p99_ms - direct.p99_ms


async def model_figures(*, rounds: int, streams: Sequence[int] = (1, 8)) -> ModelFigures:
    """Measure, with a chain of its own."""
    async with _servers() as servers, aiohttp.ClientSession() as http:
        first: dict[str, list[float]] = {name: [] for name in servers}
        for _ in range(rounds + _WARM_UP):
            for name, server in servers.items():
                first[name].append(await _first_token_s(http, server))
        rates = {
            count: {name: await _rate(http, server, count) for name, server in servers.items()}
            for count in streams
        }
    latency = {name: Latency.of(each[_WARM_UP:]) for name, each in first.items()}
    return ModelFigures(latency, rates)


async def _first_token_s(http: aiohttp.ClientSession, server: _Server) -> float:
    began_s = time.perf_counter()
    async with _ask(http, server, _ONE) as answer:
        await answer.content.readany()
        taken_s = time.perf_counter() - began_s
        await answer.read()
    return taken_s


async def _rate(http: aiohttp.ClientSession, server: _Server, streams: int) -> float:
    async def one() -> None:
        async with _ask(http, server, _MANY) as answer:
            length = len(await answer.read())
            assert length > _MANY * 100, "a stream that broke off"

    await one()
    began_s = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(streams)))
    return streams * _MANY / (time.perf_counter() - began_s)


def _ask(
    http: aiohttp.ClientSession, server: _Server, tokens: int
) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
    asked = {"model": "m", "stream": True, "messages": [{"role": "user", "content": str(tokens)}]}
    headers = {"Authorization": f"Bearer {server.key}"}
    return http.post(f"{server.url}/chat/completions", json=asked, headers=headers)


@contextlib.asynccontextmanager
async def _servers() -> AsyncIterator[dict[str, _Server]]:
    upstream = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.upstream",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert upstream.stdout is not None
    assert upstream.stdin is not None
    url = (await upstream.stdout.readline()).decode().strip()
    env = {"FACTORYCHAIN_LLM_BASE_URL": url, "FACTORYCHAIN_LLM_RUN_MAX_REQUESTS": "0"}
    try:
        with tempfile.TemporaryDirectory(prefix="factorychain-bench-") as folder:
            given = ("--agents", "tests.bench.agents")
            async with (
                running_chain(Path(folder), given, env) as chain,
                bench_sockets(chain, 1, "models") as (socket,),
            ):
                await socket.start("bench-key", "")
                found = await anext(
                    event["data"] async for _, event in socket.events() if event["type"] == "custom"
                )
                assert isinstance(found, dict)
                place = found["data"]
                key = "".join(place["key"])
                yield {DIRECT: _Server(url, ""), THROUGH: _Server(place["url"], key)}
    finally:
        upstream.stdin.close()
        await upstream.wait()
