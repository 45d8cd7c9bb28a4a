"""Agents that the end-to-end tests start."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

from factorychain import (
    Agent,
    AgentError,
    InputTimeout,
    Interrupt,
    Request,
    RunContext,
    ToolError,
    tool,
)
from factorychain.errors import ChainDegraded


class Echo(Agent):
    """Uses one tool and answers with what it was asked."""

    name = "echo"

    @tool
    async def repeat(self, text: str) -> str:
        """Repeats a text."""
        return text

    async def run(self, ctx: RunContext, text: str) -> str:
        await ctx.think(f"about {text}")
        repeated: str = await self.repeat(text=text)
        await ctx.say(repeated)
        return repeated


class Canary(Agent):
    """Says its input in every place where an agent can say something."""

    name = "canary"

    @tool
    async def carry(self, text: str) -> dict[str, str]:
        """Carries a text from the arguments to the result."""
        return {"carried": text}

    @tool
    async def drop(self, text: str) -> None:
        """Fails and says why."""
        raise ToolError(f"dropped {text}")

    async def run(self, ctx: RunContext, text: str) -> str:
        await ctx.think(text)
        print(f"printed {text}")
        await asyncio.gather(self.carry(text=text), self.carry(text=f"again {text}"))
        try:
            await self.drop(text=text)
        except ToolError as error:
            await ctx.emit("seen", {"error": str(error)})
        async with ctx.message() as message:
            for part in (text[: len(text) // 2], text[len(text) // 2 :]):
                await message.write(part)
                await asyncio.sleep(0)
        if text.endswith("!"):
            raise AgentError(f"refused {text}")
        return text


class Steps(Agent):
    """Thinks as often as it is told, `count` or `count:pause_ms`."""

    name = "steps"

    async def run(self, ctx: RunContext, text: str) -> int:
        count, _, pause_ms = text.partition(":")
        for index in range(int(count)):
            await ctx.think(f"step {index}")
            if pause_ms:
                await asyncio.sleep(int(pause_ms) / 1000)
        return int(count)


class Waits(Agent):
    """Waits until it is cancelled, saying so at the start."""

    name = "waits"

    async def run(self, ctx: RunContext, text: str) -> str:
        await ctx.think("waiting")
        await asyncio.sleep(float(text or "600"))
        return "done"


class Persists(Agent):
    """Waits for as long as it is told; started again, it says so and ends at once."""

    name = "persists"
    repeat_safe = True

    async def run(self, ctx: RunContext, text: str) -> str:
        times = await ctx.state.update(lambda count: int(str(count)) + 1, default=0)
        await ctx.say(f"attempt {ctx.attempt}")
        if ctx.attempt == 1:
            await asyncio.sleep(float(text))
        return f"attempt {ctx.attempt}, begun {times} times"


class Crosses(Agent):
    """Thinks `count` times, keeps something, asks its user and keeps nothing any more: whatever a run can
    do that is durable.
    """

    name = "crosses"
    repeat_safe = True

    async def run(self, ctx: RunContext, text: str) -> str:
        said, _, count = text.partition("|")
        for index in range(int(count)):
            await ctx.think(f"{said} {index}")
            await asyncio.sleep(0.02)
        with contextlib.suppress(ChainDegraded):  # the engine was away for too long in all
            await ctx.state.update(lambda times: int(str(times)) + 1, default=0)
        with contextlib.suppress(InputTimeout):
            await ctx.ask("Go on?", {"type": "boolean"}, timeout_s=15)
        with contextlib.suppress(ChainDegraded):
            await ctx.state.set(None)
        return said


class Breaks(Agent):
    """Fails as an agent with a bug does."""

    name = "breaks"

    async def run(self, ctx: RunContext, text: str) -> str:
        raise RuntimeError(f"a secret of the code: {text}")


class Stamps(Agent):
    """Thinks `count` times, each thought the monotonic clock in nanoseconds."""

    name = "stamps"

    async def run(self, ctx: RunContext, text: str) -> int:
        count, _, pause_ms = text.partition(":")
        for _ in range(int(count)):
            await ctx.think(str(time.monotonic_ns()))
            if pause_ms:
                await asyncio.sleep(int(pause_ms) / 1000)
        return int(count)


class Missing:
    """A dependency that nothing provides."""


class NeedsMissing(Agent):
    """Cannot be started."""

    name = "needs-missing"

    def __init__(self, missing: Missing) -> None:
        self.missing = missing

    async def run(self, ctx: RunContext, text: str) -> str:
        return text


class Tells(Agent):
    """Tells its story in `count` thoughts, `canary|count|pause_ms`; every event carries the canary."""

    name = "tells"

    @tool
    async def keep(self, text: str) -> str:
        """Keeps a text for a moment."""
        await asyncio.sleep(0)
        return text

    async def run(self, ctx: RunContext, text: str) -> str:
        canary, count, pause_ms = text.split("|")
        async with ctx.message() as message:
            for index in range(int(count)):
                await ctx.think(f"{canary} {index}")
                await self.keep(text=f"{canary} kept {index}")
                await message.write(f"{canary} said {index} ")
                await asyncio.sleep(int(pause_ms) / 1000)
        return canary


class Immoderate(Agent):
    """Says something of 6 MB, in the way that it is told."""

    name = "immoderate"

    @tool
    async def repeat(self, text: str) -> str:
        """Repeats a text."""
        return text

    @tool
    async def fail(self) -> None:
        """Fails at length."""
        raise ToolError("f" * 6_000_000)

    async def run(self, ctx: RunContext, text: str) -> str:
        much = "m" * 6_000_000
        if text == "think":
            await ctx.think(much)
        elif text == "emit":
            await ctx.emit("much", {"much": much})
        elif text == "tool":
            await self.repeat(text=much)
        elif text == "fail":
            await self.fail()
        elif text == "error":
            raise AgentError(much)
        return much


class Asks(Agent):
    """Asks its user in the way that it is told."""

    name = "asks"

    async def run(self, ctx: RunContext, text: str) -> object:
        if ctx.resume is not None:
            return {"answers": dict(ctx.resume), "pid": os.getpid()}
        if text == "number":
            return await ctx.ask("How many?", {"type": "integer"})
        if text == "late":
            try:
                return await ctx.ask("Now?", timeout_s=3.5)
            except InputTimeout:
                return "nobody answered"
        if text.startswith("echo "):
            secret = text.removeprefix("echo ")
            answer = await ctx.ask(f"Is it {secret}?", {"type": "object"})
            return "the same" if answer == {"key": secret} else "another"
        raise Interrupt(
            Request(prompt="Which city?", request="city", schema={"type": "string"}),
            Request(prompt="Sure?", request="sure", kind="approval"),
        )
