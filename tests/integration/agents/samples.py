"""Agents that these tests run."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator

from pydantic import BaseModel

from factorychain import Agent, AgentError, RunContext, ToolError, shared, tool

closed: list[str] = []
"""Runs whose dependencies were closed."""
stubborn = asyncio.Event()
unblock: Callable[[], bool] = lambda: True  # noqa: E731 - tests put another one here
"""Whether an agent that blocks may go on."""
leak: contextvars.ContextVar[str] = contextvars.ContextVar("leak", default="")


class Shared:
    """Made once."""

    made = 0


class Resource:
    """Made for each run."""

    def __init__(self, shared: Shared, user: str) -> None:
        self.shared = shared
        self.user = user


@shared
async def make_shared() -> AsyncIterator[Shared]:
    Shared.made += 1
    yield Shared()


def make_resource(shared: Shared, ctx: RunContext) -> Iterator[Resource]:
    yield Resource(shared, ctx.user)
    closed.append(ctx.run_id)


providers = [make_shared, make_resource]


class Five(Agent):
    """Says each of the five events."""

    name = "five"

    def __init__(self, resource: Resource) -> None:
        self.resource = resource

    @tool
    async def look(self, what: str) -> dict[str, str]:
        """Looks."""
        return {"seen": what, "by": self.resource.user}

    async def run(self, ctx: RunContext, text: str) -> str:
        await ctx.think("looking")
        found = await self.look(what=text)
        async with ctx.message() as message:
            await message.write(found["seen"])
        return found["seen"]


class Waits(Agent):
    """Waits for ever."""

    name = "waits"

    @tool
    async def hang(self) -> None:
        """Never ends."""
        await asyncio.Event().wait()

    async def run(self, ctx: RunContext, text: str) -> None:
        await ctx.think("waiting")
        await self.hang()


class Stubborn(Agent):
    """Does not stop when it is told to."""

    name = "stubborn"

    def __init__(self, resource: Resource) -> None: ...

    async def run(self, ctx: RunContext, text: str) -> None:
        await ctx.think("here to stay")
        while not stubborn.is_set():
            try:
                await stubborn.wait()
            except asyncio.CancelledError:
                continue


class Fails(Agent):
    """Fails in the way it is told."""

    name = "fails"

    @tool
    async def broken(self) -> None:
        """Has a bug."""
        raise ValueError("a detail of the code")

    async def run(self, ctx: RunContext, text: str) -> None:
        if text == "agent":
            raise AgentError("the lookup is down", reason="LOOKUP_DOWN", retryable=True)
        if text == "tool":
            raise ToolError("no such row", "NO_ROW")
        if text == "exit":
            sys.exit(3)
        if text == "big":
            await ctx.emit("big", "x" * 70_000)
        await self.broken()


class Prints(Agent):
    """Prints."""

    name = "prints"

    def run(self, ctx: RunContext, text: str) -> str:
        print(f"printed {text}")
        ctx.wait(ctx.think(f"thought {text}"))
        time.sleep(0)
        return leak.get()


class Remembers(Agent):
    """Answers with the conversation so far."""

    name = "remembers"

    async def run(self, ctx: RunContext, text: str) -> list[str]:
        return [each.input.text for each in await ctx.history()]


class Order(BaseModel):
    """An order."""

    item: str
    count: int = 1


class Takes(Agent):
    """Takes an order."""

    name = "takes"

    async def run(self, ctx: RunContext, order: Order) -> str:
        return f"{order.count} {order.item}"


class Bursts(Agent):
    """Thinks as often as it is told."""

    name = "bursts"

    async def run(self, ctx: RunContext, text: str) -> int:
        for index in range(int(text)):
            await ctx.think(f"step {index} of what the agent is about to do next")
        return int(text)


class Missing:
    """Nothing provides it."""


class Incomplete(Agent):
    """Cannot be started."""

    name = "incomplete"

    def __init__(self, missing: Missing) -> None:
        self.missing = missing

    async def run(self, ctx: RunContext, text: str) -> str:
        return text


class Blocks(Agent):
    """Holds up the loop that it shares with everybody."""

    name = "blocks"

    async def run(self, ctx: RunContext, text: str) -> None:
        if text == "itself":
            self.block()
        elif text == "in a task":
            await asyncio.create_task(self.later(), name="its own task")
        elif text == "in a callback":
            asyncio.get_running_loop().call_soon(self.block)
            await asyncio.sleep(0)

    async def later(self) -> None:
        self.block()

    def block(self) -> None:
        for _ in range(1000):
            if unblock():
                return
            time.sleep(0.005)
