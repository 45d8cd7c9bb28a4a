"""What a run costs in memory while it lasts."""

from __future__ import annotations

import asyncio

from tests.bench.product import bench_sockets
from tests.e2e.chain import Chain
from tests.e2e.held import LAYERS, held
from tests.e2e.sockets import ENDINGS

_HELD_S = "8"


async def memory_per_run(chain: Chain, *, runs: int) -> dict[str, float]:
    """Resident bytes that each layer grew by for one of `runs` runs that wait, sockets included."""
    before = {layer: (await held(chain, layer))["rss_bytes"] for layer in LAYERS}
    async with bench_sockets(chain, runs, "memory") as sockets:

        async def until(index: int, *kinds: str) -> None:
            async for _, event in sockets[index].events():
                if event["type"] in kinds:
                    return

        await asyncio.gather(*(each.start("bench-holds", _HELD_S) for each in sockets))
        await asyncio.gather(*(until(index, "agent_started") for index in range(runs)))
        after = {layer: (await held(chain, layer))["rss_bytes"] for layer in LAYERS}
        # What is measured next has the machine, and every place to run, to itself.
        await asyncio.gather(*(until(index, *ENDINGS) for index in range(runs)))
    return {layer: (after[layer] - before[layer]) / runs for layer in LAYERS}
