"""An agent that takes its time, for the scenes that need a run in the middle of its work."""

from __future__ import annotations

import asyncio

from factorychain import Agent, RunContext, tool

_STEP_S = 0.1


class Slow(Agent):
    """Works for the number of seconds that it is told, and says so every tenth of one."""

    name = "demo-slow"

    @tool
    async def measure(self, step: int) -> int:
        """Measures one step."""
        await asyncio.sleep(_STEP_S)
        return step

    async def run(self, ctx: RunContext, text: str) -> int:
        steps = max(1, round(float(text) / _STEP_S))
        for step in range(steps):
            if step % 5 == 0:
                await ctx.think(f"at step {step} of {steps}")
            await self.measure(step=step)
        return steps
