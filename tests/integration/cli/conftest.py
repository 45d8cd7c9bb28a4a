"""A chain as a user starts it in a folder of agents, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.command import Command, Up, running_up

AGENTS = '''
import asyncio
import sys

from factorychain import Agent, AgentError, Interrupt, Request, RunContext


class Says(Agent):
    """Says what it was told, in one piece."""

    async def run(self, ctx: RunContext, text: str) -> str:
        await ctx.think("[bold] is no markup")
        return text


class Streams(Agent):
    """Says what it was told, word by word."""

    async def run(self, ctx: RunContext, text: str) -> str:
        async with ctx.message() as message:
            for word in text.split(" "):
                await message.write(f"{word} ")
        return text


class Prints(Agent):
    """Prints, fails."""

    async def run(self, ctx: RunContext, text: str) -> str:
        print(f"printed {text}")
        print(f"complained {text}", file=sys.stderr)
        raise ValueError(f"a bug near {text}")


class Refuses(Agent):
    """Fails and says why."""

    async def run(self, ctx: RunContext, text: str) -> str:
        raise AgentError("not today", reason="CLOSED")


class Waits(Agent):
    """Waits until it is cancelled."""

    async def run(self, ctx: RunContext, text: str) -> str:
        await ctx.think("waiting")
        await asyncio.sleep(600)
        return text


class Asks(Agent):
    """Asks while it runs, or ends with what it asks."""

    async def run(self, ctx: RunContext, text: str) -> str:
        if ctx.resume is not None:
            return f"resumed with {ctx.resume['city']}"
        if text == "later":
            raise Interrupt(Request(prompt="Which city?", request="city"))
        count = await ctx.ask("How many?", {"type": "integer"})
        return f"{count} it is" if await ctx.approve("Really?") else "none then"


class Clings(Agent):
    """Does not let go when it is cancelled."""

    async def run(self, ctx: RunContext, text: str) -> str:
        await ctx.think("clinging")
        while True:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                pass
'''


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the user works in, with a module of agents."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "deskagents.py").write_text(AGENTS)
    return folder


@pytest.fixture(scope="module")
def command(desk: Path) -> Command:
    return Command(desk)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def up(command: Command, desk: Path) -> AsyncIterator[Up]:
    """A chain that is up."""
    quick = {"FACTORYCHAIN_CANCEL_GRACE_S": "1", "FACTORYCHAIN_DRAIN_TIMEOUT_S": "2"}
    async with running_up(command, desk, "--agents", "deskagents", **quick) as chain:
        yield chain
