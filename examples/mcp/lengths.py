"""Agents with the tools of an MCP server: one that is plain code, one in which a model chooses."""

import sys
from pathlib import Path

from factorychain import Agent, AgentError, MCPServer, RunContext, ToolError
from factorychain.builtin.assistant import Assistant

UNITS = MCPServer(
    command=sys.executable,
    args=[str(Path(__file__).with_name("units_server.py"))],
    name="units",
    timeout_s=10,
)


class Lengths(Agent):
    """Converts lengths: "3 mile in km"."""

    processes = True
    tools = (UNITS,)

    async def run(self, ctx: RunContext, text: str) -> str:
        try:
            value, unit, _, to = text.split()
            arguments = {"value": float(value), "unit": unit, "to": to}
        except ValueError:
            raise AgentError("Ask as in: 3 mile in km", reason="BAD_QUESTION") from None
        await ctx.think(f"Converting {unit} to {to}")
        try:
            found = await ctx.tools.call("convert", arguments)
        except ToolError as error:
            return error.message
        return f"{value} {unit} = {found:.2f} {to}"


class Surveyor(Assistant):
    """Answers questions about lengths, however they are put."""

    processes = True
    tools = (UNITS,)
    instructions = "You help surveyors. Convert lengths with your tool; never calculate yourself."
