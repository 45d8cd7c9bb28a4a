"""What a program of an MCP server sees."""

from __future__ import annotations

from factorychain._mcp.stdio import environment
from factorychain.mcp import MCPServer

OWN = {"PATH": "/bin", "HOME": "/run/1", "OPENAI_API_KEY": "of the run", "TOKEN": "declared"}


def test_a_few_variables_and_what_it_is_given() -> None:
    plain = {"PATH": "/bin", "HOME": "/run/1"}
    assert environment(MCPServer(command="a"), OWN) == plain
    assert environment(MCPServer(command="a", env={"A": "1"}), OWN) == plain | {"A": "1"}
    by_name = MCPServer(command="a", env=["TOKEN", "NOT_SET"])
    assert environment(by_name, OWN) == plain | {"TOKEN": "declared"}
