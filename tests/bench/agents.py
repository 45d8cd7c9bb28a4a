"""Agents that do nothing but what is measured."""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path

from factorychain import Agent, RunContext

_LOOK_EVERY_S = 1.0


class Short(Agent):
    """Ends at once; its output is the monotonic clock in nanoseconds at its first line."""

    name = "bench-short"

    async def run(self, ctx: RunContext, text: str) -> str:
        return str(time.monotonic_ns())


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


class Key(Agent):
    """Says where its run reaches models, and by which key, and stays."""

    name = "bench-key"

    async def run(self, ctx: RunContext, text: str) -> None:
        # Letter by letter: a key as it is would be taken out of an event.
        key = list(os.environ["OPENAI_API_KEY"])
        await ctx.emit("models", {"url": os.environ["OPENAI_BASE_URL"], "key": key})
        await asyncio.Event().wait()


class Gate(Agent):
    """Says that it is there, stays until the process of the given pid is gone, and ends.

    Its output is its own process's memory as it was when it left.
    """

    name = "bench-gate"

    async def run(self, ctx: RunContext, text: str) -> str:
        await ctx.think("here")
        gate = Path("/proc", text)
        await asyncio.sleep(random.uniform(0, _LOOK_EVERY_S))  # not all at the same moment
        while gate.exists():  # noqa: ASYNC110 - nothing that a confined agent may use would tell it
            await asyncio.sleep(_LOOK_EVERY_S)
        return Path("/proc/self/smaps_rollup").read_text()
