"""An agent that keeps something in its thread."""

import asyncio

from factorychain import Agent, RunContext
from factorychain.errors import StateConflict, StateLimit


class Keeps(Agent):
    """Counts its runs, and keeps what it is told to."""

    name = "keeps"

    async def run(self, ctx: RunContext, text: str) -> object:
        return await getattr(self, text)(ctx)

    async def count(self, ctx: RunContext) -> object:
        counted = await ctx.state.update(lambda count: int(str(count)) + 1, default=0)
        return [ctx.user, ctx.thread, counted]

    async def at_once(self, ctx: RunContext) -> object:
        await asyncio.gather(
            *(ctx.state.update(lambda count: int(str(count)) + 1, default=0) for _ in range(5))
        )
        return await ctx.state.get()

    async def conflict(self, ctx: RunContext) -> object:
        host = ctx._run.host
        revision = await host.store("blob", b"one", 0)
        try:
            await host.store("blob", b"two", revision + 1)
        except StateConflict as error:
            return [error.reason, error.message]
        return None

    async def large(self, ctx: RunContext) -> object:
        host = ctx._run.host
        blob = bytes(range(256)) * 2048
        loaded, _ = await host.load(await self._stored(ctx, blob))
        try:
            await host.store("blob", bytes(1024 * 1024 + 1), 0)
        except StateLimit as error:
            return [loaded == blob, error.reason]
        return None

    async def _stored(self, ctx: RunContext, blob: bytes) -> str:
        await ctx._run.host.store("blob", blob, 0)
        return "blob"
