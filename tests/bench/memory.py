"""What a run costs in memory while it lasts."""

from __future__ import annotations

import asyncio

from tests.bench.product import bench_sockets
from tests.e2e.chain import Chain
from tests.e2e.held import LAYERS, held


async def memory_per_run(chain: Chain, *, runs: int) -> dict[str, float]:
    """Resident bytes that each layer grew by for one of `runs` runs that wait, sockets included."""
    before = {layer: (await held(chain, layer))["rss_bytes"] for layer in LAYERS}
    async with bench_sockets(chain, runs, "memory") as sockets:

        async def started(index: int) -> None:
            await sockets[index].start("bench-holds", "8")
            async for _, event in sockets[index].events():
                if event["type"] == "agent_started":
                    return

        await asyncio.gather(*(started(index) for index in range(runs)))
        after = {layer: (await held(chain, layer))["rss_bytes"] for layer in LAYERS}
    return {layer: (after[layer] - before[layer]) / runs for layer in LAYERS}
