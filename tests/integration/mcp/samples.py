"""Agents with tools of the MCP servers beside this file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import orjson

from factorychain import Agent, RunContext, ToolError
from factorychain.mcp import MCPServer

HERE = Path(__file__).parent
OFFICIAL = str(HERE / "tool_server.py")
PLAIN = str(HERE / "plain_server.py")


def official(**more: object) -> MCPServer:
    """The server on the official SDK, which imports for long on a busy machine."""
    return program(**{"args": [OFFICIAL, "stdio"], "start_timeout_s": 150.0, **more})


def program(**more: object) -> MCPServer:
    """The one that starts in no time."""
    fields = {"command": sys.executable, "args": ["-S", PLAIN], "name": "tools", **more}
    return MCPServer(**fields)  # type: ignore[arg-type]


class Caller(Agent):
    """Calls what it is told: `[[tool, arguments], …]`; what fails is its text."""

    processes = True
    read_paths = (PLAIN,)
    tools: ClassVar[tuple[MCPServer, ...]] = (program(),)

    async def run(self, ctx: RunContext, text: str) -> list[object]:
        return [await self._call(ctx, *each) for each in orjson.loads(text)]

    async def _call(self, ctx: RunContext, tool: str, arguments: dict[str, object]) -> object:
        try:
            return await ctx.tools.call(tool, arguments)
        except ToolError as error:
            return f"{error.reason}: {error.message}"


class Official(Caller):
    """The same with the official server."""

    read_paths = (OFFICIAL,)
    tools = (official(),)


class Trusted(Caller):
    """Reaches a server with a secret of its user's, which it never sees."""

    processes = False
    tools: ClassVar[tuple[MCPServer, ...]] = ()

    async def run(self, ctx: RunContext, text: str) -> list[object]:
        tickets = ctx.credential("tickets")
        url = f"{tickets.base_url}/mcp"
        await ctx.tools.connect(MCPServer(url=url, headers=tickets.headers))
        return [*await super().run(ctx, text), str(tickets.headers)]


class Undeclared(Agent):
    """Starts a program that its class does not declare, in the middle of the run."""

    async def run(self, ctx: RunContext, text: str) -> None:
        await ctx.tools.connect(program())
