"""An agent that uses every way in which an instance and the service talk."""

from __future__ import annotations

from factorychain import Agent, RunContext, tool


class Talks(Agent):
    """Says, prints, asks and traces."""

    name = "talks"

    @tool
    async def look(self, what: str) -> str:
        """Looks."""
        return what

    async def run(self, ctx: RunContext, text: str) -> list[str]:
        print(f"printed {text}")
        for index in range(20):
            await ctx.think(f"{text} {index} " + "x" * 8_000)
        await self.look(what=text)
        return [each.input.text for each in await ctx.history()]
