"""Agents that run one another, and agents that cannot be run by them."""

import asyncio
import os

from factorychain import Agent, RunContext, tool
from factorychain.errors import FactoryChainError


class Worker(Agent):
    """Does what it is told."""

    name = "worker"
    network_ports = (5432,)

    @tool
    async def lift(self, what: str) -> str:
        return f"{what} lifted"

    async def run(self, ctx: RunContext, text: str) -> object:
        await ctx.think(f"{text} in {ctx.user}'s {ctx.thread}")
        if text == "hang":
            try:
                await asyncio.Event().wait()
            finally:
                await ctx.think("told to stop")
        await ctx.call(self.lift, what=text)
        return [os.getpid(), ctx.run_id]


class Asker(Agent):
    """Asks the user."""

    name = "asker"

    async def run(self, ctx: RunContext, text: str) -> object:
        return await ctx.ask("How many?", {"type": "integer"})


class Lead(Agent):
    """Runs workers."""

    name = "lead"
    network_ports = (5432, 5433)

    async def run(self, ctx: RunContext, text: str) -> object:
        if text == "hang":
            return await ctx.run("worker", "hang")
        if text == "ask":
            return await ctx.run("asker")
        if text == "refused":
            return [await self._refusal(ctx, each) for each in REFUSED]
        both = await asyncio.gather(
            ctx.run("worker", "left"), ctx.run(Worker, "right", name="second")
        )
        return [*both, [os.getpid(), ctx.run_id]]

    async def _refusal(self, ctx: RunContext, agent: str) -> str:
        try:
            return str(await ctx.run(agent, "x"))
        except FactoryChainError as error:
            return f"{error.reason}: {error.message}"


class Asks(Lead):
    """Runs whom it is told to."""

    name = "asks"

    async def run(self, ctx: RunContext, text: str) -> object:
        return await self._refusal(ctx, text)


class _Other:
    async def run(self, ctx: RunContext, text: str) -> str:
        return "it ran"


class Ports(_Other, Agent):
    """Talks to another port."""

    name = "ports"
    network_ports = (9999,)


class Reads(_Other, Agent):
    """Reads other files."""

    name = "reads"
    read_paths = ("/somewhere/else",)


class Variables(_Other, Agent):
    """Has a variable."""

    name = "variables"
    env = ("SOME_TOKEN",)


class Trusted(_Other, Agent):
    """Runs in the service."""

    name = "trusted"
    isolation = "task"


class Confined(_Other, Agent):
    """Runs in a process, whatever the operator says."""

    name = "confined"
    isolation = "process"


REFUSED = ("ports", "reads", "variables", "trusted", "confined", "nobody")
