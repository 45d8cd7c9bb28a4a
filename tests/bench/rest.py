"""Starts from rest: the floor and the chains take turns, so that all had the same machine.

A user does not start a run the moment that the last one has ended. What has rested pays for being
woken, hop by hop, in the product and in the floor; in a closed loop only the floor is never cold.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from tests.bench.figures import Latency
from tests.bench.product import bench_sockets, start_short
from tests.e2e.chain import Chain

_WARM_UP = 20
_REST_S = 0.02
# What a start takes from the idle processes is made again a moment later, and is not the next one's.
_MADE_AGAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class FromRest:
    """One chain's starts."""

    first_event: Latency
    first_line: Latency
    """Until the agent's own code runs."""


async def from_rest(
    chains: Mapping[str, Chain], call: Callable[[], Awaitable[object]], *, rounds: int
) -> tuple[Latency, dict[str, FromRest]]:
    """Calls of the floor, and one user's starts on each chain, with a pause before each."""
    floor: list[float] = []
    events: dict[str, list[float]] = {name: [] for name in chains}
    lines: dict[str, list[float]] = {name: [] for name in chains}
    async with contextlib.AsyncExitStack() as stack:
        sockets = {}
        for name, chain in chains.items():
            (sockets[name],) = await stack.enter_async_context(bench_sockets(chain, 1, "rested"))
        for _ in range(rounds + _WARM_UP):
            await asyncio.sleep(_REST_S)
            began = time.monotonic()
            await call()
            floor.append(time.monotonic() - began)
            for name, socket in sockets.items():
                await asyncio.sleep(_REST_S)
                started = await start_short(socket)
                events[name].append(started.first_event_s)
                lines[name].append(started.first_line_s)
            await asyncio.sleep(_MADE_AGAIN_S)
    found = {name: FromRest(_kept(events[name]), _kept(lines[name])) for name in chains}
    return _kept(floor), found


def _kept(taken: list[float]) -> Latency:
    return Latency.of(taken[_WARM_UP:])
