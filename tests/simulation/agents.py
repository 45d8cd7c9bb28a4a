"""The agents of a simulation. What they do is in their input, so that a seed decides it."""

from __future__ import annotations

import asyncio

import orjson

from factorychain import Agent, AgentError, InputTimeout, Interrupt, RunContext
from tests.simulation import observing


class Walker(Agent):
    """Says so many steps, slowly, then ends as it was asked to."""

    name = "walker"

    async def run(self, ctx: RunContext, text: str) -> str:
        return await _walk(ctx, text)


class Safe(Agent):
    """The same, and may be started again after its replica was lost."""

    name = "safe"
    repeat_safe = True

    async def run(self, ctx: RunContext, text: str) -> str:
        return await _walk(ctx, text)


async def _ask(ctx: RunContext, canary: str) -> None:
    try:
        answer = await ctx.ask(f"Go on, {canary}?", timeout_s=10)
    except InputTimeout:
        return
    if answer != canary:
        observing.current().violated(f"{ctx.user} was taken to have answered {answer!r}")


async def _walk(ctx: RunContext, text: str) -> str:
    order = orjson.loads(text)
    with observing.current().body(ctx):
        for number in range(order["steps"]):
            await ctx.emit("step", {"n": number, "canary": order["canary"]})
            await asyncio.sleep(order["pause_s"])
        await ctx.think(order["canary"])
        if order["keeps"]:
            await observing.current().keeps(ctx)
        if order["forgets"]:
            await observing.current().forgets(ctx)
        if order["asks"]:
            await _ask(ctx, order["canary"])
    if order["end"] == "fail":
        raise AgentError(f"as asked, {order['canary']}")
    if order["end"] == "interrupt":
        if ctx.resume is None:
            raise Interrupt(f"And then, {order['canary']}?")
        observing.current().resumed(ctx, order["canary"])
    if order["end"] == "hang":
        await asyncio.sleep(3600)
    return str(order["canary"])
