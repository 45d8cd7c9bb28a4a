"""Agents that the tests of processes run, each in one of its own."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NoReturn

from factorychain import Agent, AgentError, RunContext, shared, tool

# As many modules do: the handler keeps the stream that is there when they are imported.
log = logging.getLogger(__name__)
log.addHandler(logging.StreamHandler())

seen: list[str] = []
"""What runs of this process have left; a fresh process finds none."""


class Shared:
    """Made once, by the zygote."""

    def __init__(self) -> None:
        self.maker = os.getpid()


class Resource:
    """Made for each run."""

    def __init__(self, shared: Shared, user: str) -> None:
        self.shared = shared
        self.user = user


@shared
async def make_shared() -> AsyncIterator[Shared]:
    yield Shared()
    print("closed what is shared")


def make_resource(shared: Shared, ctx: RunContext) -> Iterator[Resource]:
    yield Resource(shared, ctx.user)
    print(f"closed what {ctx.run_id} used")


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


class Where(Agent):
    """Says what process it is in, and what it finds there of others."""

    name = "where"

    def __init__(self, resource: Resource) -> None:
        self.resource = resource

    async def run(self, ctx: RunContext, text: str) -> dict[str, object]:
        before = list(seen)
        seen.append(ctx.user)
        return {
            "pid": os.getpid(),
            "maker": self.resource.shared.maker,
            "before": before,
            "folder": str(Path.cwd()),
            "environment": sorted(os.environ),
            "grpc": "grpc" in sys.modules,
        }


class Trusted(Agent):
    """Runs in the service, whatever the operator's choice for others is."""

    name = "trusted"
    isolation = "task"

    async def run(self, ctx: RunContext, text: str) -> int:
        return os.getpid()


class Waits(Agent):
    """Waits for ever, and says when it is told to stop."""

    name = "waits"

    @tool
    async def hang(self) -> None:
        """Never ends."""
        await asyncio.Event().wait()

    async def run(self, ctx: RunContext, text: str) -> None:
        try:
            await self.hang()
        finally:
            print("told to stop")


class Stubborn(Agent):
    """Stops for no cancel and no signal."""

    name = "stubborn"

    async def run(self, ctx: RunContext, text: str) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        await ctx.think("here to stay")
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue


class Spins(Agent):
    """Holds up its loop."""

    name = "spins"
    cpu_s = 1.0

    async def run(self, ctx: RunContext, text: str) -> NoReturn:
        await ctx.think("spinning")
        if text == "deaf":
            signal.signal(signal.SIGXCPU, signal.SIG_IGN)
        try:
            while True:
                pass
        finally:
            print("interrupted")


class Sleeps(Agent):
    """Holds up its loop without using the processor."""

    name = "sleeps"

    async def run(self, ctx: RunContext, text: str) -> None:
        await ctx.think("sleeping")
        time.sleep(600)  # noqa: ASYNC251 - this is what must not happen


class Eats(Agent):
    """Allocates without end."""

    name = "eats"
    memory_bytes = 64 * 1024 * 1024

    async def run(self, ctx: RunContext, text: str) -> int:
        kept = []
        while True:
            kept.append(bytearray(1024 * 1024))


class Dies(Agent):
    """Ends its process in the way it is told."""

    name = "dies"

    async def run(self, ctx: RunContext, text: str) -> None:
        await ctx.think("about to die")
        if text == "segv":
            ctypes.string_at(0)
        if text == "exit":
            os._exit(0)
        if text == "close":
            os.closerange(3, 100)
            await asyncio.Event().wait()
        if text == "error":
            raise AgentError("as it should", reason="OWN_REASON")
        os.kill(os.getpid(), signal.SIGKILL)


class Bursts(Agent):
    """Thinks as often as it is told."""

    name = "bursts"

    async def run(self, ctx: RunContext, text: str) -> int:
        for index in range(int(text)):
            await ctx.think(f"step {index} of what the agent is about to do next")
        return int(text)


class Remembers(Agent):
    """Answers with the conversation so far."""

    name = "remembers"

    async def run(self, ctx: RunContext, text: str) -> list[str]:
        return [each.input.text for each in await ctx.history()]


class Prints(Agent):
    """Prints, in Python and past it."""

    name = "prints"

    def run(self, ctx: RunContext, text: str) -> str:
        print(f"printed {text}")
        log.warning("logged %s", text)
        print("no end of the line", end="", file=sys.stderr)
        os.write(2, b"written past Python\n")
        ctx.wait(ctx.think(f"thought {text}"))
        return text


class Writes(Agent):
    """Leaves what is hard to remove in its folder."""

    name = "writes"

    async def run(self, ctx: RunContext, text: str) -> str:
        top = Path.cwd()
        for index in range(400):
            Path("d").mkdir()
            Path(f"d/{index}").write_text("x")
            os.chdir("d")
        return str(top)
