"""A server of tools that speaks MCP on its standard input and output. It knows nothing of factorychain."""

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

METRES = {"m": 1.0, "km": 1000.0, "mile": 1609.344, "foot": 0.3048, "inch": 0.0254}

server = MCPServer("units")


@server.tool()
def convert(value: float, unit: str, to: str) -> float:
    """Convert a length from one unit to another."""
    for each in (unit, to):
        if each not in METRES:
            raise ToolError(f"{each} is no unit that I know; these are: {', '.join(METRES)}")
    return value * METRES[unit] / METRES[to]


if __name__ == "__main__":
    server.run("stdio")
