"""The agent of the users under chaos: says numbered things, and writes down which were taken from it.

A line `taken CANARY#N` on its standard output says that the `await` which said number N had returned.
"""

from __future__ import annotations

import asyncio

from factorychain import Agent, RunContext, tool


class Scripted(Agent):
    """Tells its story in steps, `canary|steps|pause_ms`; everything it says has its number behind `#`."""

    name = "scripted"

    @tool
    async def keep(self, text: str) -> str:
        """Keeps a text for a moment."""
        await asyncio.sleep(0)
        return text

    async def run(self, ctx: RunContext, text: str) -> dict[str, object]:
        canary, steps, pause_ms = text.split("|")
        said = 0
        async with ctx.message() as message:
            for step in range(int(steps)):
                await ctx.think(f"{canary}#{said} ")
                await self.keep(text=f"{canary}#{said + 1} ")
                await message.write(f"{canary}#{said + 2} ")
                said += 3
                if step % 3 == 0:
                    await ctx.emit("note", {"text": f"{canary}#{said} "})
                    said += 1
                print(f"taken {canary}#{said - 1}")
                await asyncio.sleep(int(pause_ms) / 1000)
        return {"canary": canary, "said": said}
