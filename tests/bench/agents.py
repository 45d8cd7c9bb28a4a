"""Agents that do nothing but what is measured."""

from __future__ import annotations

import asyncio
import time

from factorychain import Agent, RunContext


class Short(Agent):
    """Ends at once."""

    name = "bench-short"

    async def run(self, ctx: RunContext, text: str) -> str:
        return text


class Stamps(Agent):
    """Thinks `count` or `count:pause_ms` times, each thought the monotonic clock in nanoseconds."""

    name = "bench-stamps"

    async def run(self, ctx: RunContext, text: str) -> int:
        count, _, pause_ms = text.partition(":")
        for _ in range(int(count)):
            await ctx.think(str(time.monotonic_ns()))
            if pause_ms:
                await asyncio.sleep(int(pause_ms) / 1000)
        return int(count)


class Holds(Agent):
    """Stays, so that what a run costs in memory can be read."""

    name = "bench-holds"

    async def run(self, ctx: RunContext, text: str) -> str:
        await asyncio.sleep(float(text))
        return text
