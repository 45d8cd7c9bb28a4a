"""Agents that ask their user."""

from __future__ import annotations

import asyncio

from factorychain import Agent, InputTimeout, Interrupt, Request, RunContext, ToolError, tool


class AsksUser(Agent):
    """Asks in the way that it is told."""

    name = "asks-user"

    @tool
    async def find(self, ctx: RunContext) -> object:
        """Asks inside of a call."""
        return await ctx.ask("Where?")

    @tool(approval="Really remove it?", timeout_s=5)
    async def remove(self, path: str) -> str:
        """Removes something."""
        return f"removed {path}"

    async def run(self, ctx: RunContext, text: str) -> object:
        if ctx.resume is not None:
            return dict(ctx.resume)
        way, _, rest = text.partition(" ")
        found: object = await getattr(self, f"_{way}")(ctx, rest)
        return found

    async def _number(self, ctx: RunContext, rest: str) -> object:
        for index in range(20):
            await ctx.think(f"thought {index}")
        return await ctx.ask("How many?", {"type": "integer"})

    async def _tool(self, ctx: RunContext, rest: str) -> object:
        return await ctx.call(self.find)

    async def _approval(self, ctx: RunContext, rest: str) -> object:
        try:
            return await ctx.call(self.remove, path="/tmp/x")
        except ToolError as error:
            return [error.reason, error.message]

    async def _parallel(self, ctx: RunContext, rest: str) -> object:
        return await asyncio.gather(*(ctx.ask(f"{number}?") for number in range(3)))

    async def _late(self, ctx: RunContext, rest: str) -> object:
        try:
            return await ctx.ask("Now?", timeout_s=0.05)
        except InputTimeout:
            return "went on without"

    async def _withdraws(self, ctx: RunContext, rest: str) -> object:
        try:
            async with asyncio.timeout(0.1):
                return await ctx.ask("Now?")
        except TimeoutError:
            return "did not want to know"

    async def _again(self, ctx: RunContext, rest: str) -> object:
        await ctx.ask("Ready?")
        left_s = (ctx.deadline.timestamp() if ctx.deadline else 0.0) - float(rest)
        await asyncio.sleep(60)
        return left_s

    async def _history(self, ctx: RunContext, rest: str) -> object:
        await ctx.ask("Ready?")
        return len(await ctx.history())

    async def _stops(self, ctx: RunContext, rest: str) -> object:
        async def asks(request: str) -> None:
            raise Interrupt(
                Request(prompt=f"{request}?", request=request), output="to be continued"
            )

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asks(each)) for each in ("a", "b")]
        return len(tasks)

    async def _bad(self, ctx: RunContext, rest: str) -> object:
        raise Interrupt(Request(prompt="?", schema={"type": "nonsense"}))

    async def _many(self, ctx: RunContext, rest: str) -> object:
        asked = [asyncio.create_task(ctx.ask(f"{number}?")) for number in range(17)]
        done, left = await asyncio.wait(asked, return_when=asyncio.FIRST_EXCEPTION)
        for each in left:
            each.cancel()
        return [str(each.exception()) for each in done]


class AsksFromThread(Agent):
    """Is synchronous."""

    name = "asks-from-thread"

    def run(self, ctx: RunContext, text: str) -> object:
        ctx.wait(ctx.think("in a thread"))
        return ctx.wait(ctx.ask("And?"))
