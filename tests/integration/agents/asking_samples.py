"""Agents that ask the service for something and may not wait for the answer."""

from __future__ import annotations

import asyncio

from factorychain import Agent, RunContext
from tests.stepping import cancelled_at


class Asks(Agent):
    """Asks for the history, gives up at each await in turn, and asks again at once."""

    name = "asks"

    async def run(self, ctx: RunContext, text: str) -> dict[str, object]:
        at, wrong = 0, []
        while await cancelled_at(ctx.history(3), at):
            found = [each.input.text for each in await ctx.history(2)]
            wrong += [] if found == [f"{text} 2", f"{text} 3"] else [found]
            at += 1
        return {"awaits": at, "wrong": wrong}


class AsksMuch(Agent):
    """Several questions at once, of which some are given up."""

    name = "asks-much"

    async def run(self, ctx: RunContext, text: str) -> list[list[str]]:
        asked = [asyncio.create_task(self._ask(ctx, limit)) for limit in (1, 2, 3, 1, 2, 3)]
        await asyncio.sleep(0)
        for each in asked[::2]:
            each.cancel()
        return [await each for each in asked[1::2]]

    async def _ask(self, ctx: RunContext, limit: int) -> list[str]:
        return [each.input.text for each in await ctx.history(limit)]
