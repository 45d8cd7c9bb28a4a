"""Assistants as their authors write them."""

from __future__ import annotations

from factorychain import tool
from factorychain.builtin.assistant import Assistant
from tests.integration.mcp.samples import PLAIN, program


@tool
async def shout(text: str) -> str:
    """Says it aloud."""
    return text.upper()


class Clerk(Assistant):
    """With a function and the tools of an MCP server."""

    processes = True
    read_paths = (PLAIN,)
    tools = (shout, program(only=["add"], prefix="sum"))
    instructions = "You are a clerk."
