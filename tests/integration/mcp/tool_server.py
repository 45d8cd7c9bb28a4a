"""An MCP server for the tests: `python tool_server.py stdio`, or `http PORT_FILE`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel

server = MCPServer("tools")
said: list[str] = []


class Weather(BaseModel):
    """Structured."""

    city: str
    degrees: int


@server.tool()
async def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
async def weather(city: str) -> Weather:
    """The weather."""
    return Weather(city=city, degrees=21)


@server.tool()
async def words(count: int, ctx: Context[Any, Any]) -> str:
    """Tells how far it is."""
    for each in range(count):
        await ctx.report_progress(each + 1, count, f"word {each + 1}")
    return "done"


@server.tool(structured_output=False)
async def picture() -> list[Any]:
    """Text and an image."""
    return ["a dot", Image(data=b"\x89PNG", format="png")]


@server.tool()
async def fails(why: str) -> str:
    """Fails with a text."""
    raise ToolError(f"it is {why}")


@server.tool()
async def dies() -> str:
    """Ends the server in the middle of the call."""
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


@server.tool()
async def hangs(note: str) -> str:
    """Never answers, and notes that it was called, and that it was cancelled."""
    Path(note).write_text("called")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        Path(note).write_text("cancelled")
        raise
    return "never"


@server.tool()
async def remember(word: str) -> list[str]:
    """Everything that this process has been told, by whoever."""
    said.append(word)
    return said


@server.tool()
async def badge(ctx: Context[Any, Any]) -> str:
    """Whose secret the caller shows at the door: `Bearer secret-of-WHOM`."""
    return (ctx.headers or {}).get("authorization", "").rpartition("-")[2]


@server.tool()
async def about() -> dict[str, Any]:
    """What the process sees."""
    return {"pid": os.getpid(), "env": dict(os.environ), "cwd": str(Path.cwd())}


async def _http(port_file: str) -> None:
    import socket

    import uvicorn

    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(server.streamable_http_app(), log_level="error", ws="none")
    Path(port_file).write_text(str(listening.getsockname()[1]))
    await uvicorn.Server(config).serve([listening])


if __name__ == "__main__":
    print("the server starts", file=sys.stderr, flush=True)
    if sys.argv[1] == "http":
        asyncio.run(_http(sys.argv[2]))
    else:
        server.run("stdio")
