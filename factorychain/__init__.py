"""factorychain: real-time, multi-user AI chat as a chain of four gRPC factories.

What an agent's author needs is here, and `Client` for who talks to a chain; `factorychain.testing` runs an
agent without one. Names are imported when they are first used: agents do not load what the client needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from factorychain.agent import Agent
    from factorychain.client import Client
    from factorychain.context import RunContext
    from factorychain.credential import Credential
    from factorychain.errors import AgentError, InputTimeout, ToolError
    from factorychain.history import PastRun
    from factorychain.input import FilePart, ImagePart, Input, TextPart
    from factorychain.interrupt import Interrupt, Request
    from factorychain.mcp import MCPServer
    from factorychain.message import MessageStream, ThinkingStream
    from factorychain.providers import shared
    from factorychain.tools import tool
    from factorychain.usage import Usage

__all__ = [
    "Agent",
    "AgentError",
    "Client",
    "Credential",
    "FilePart",
    "ImagePart",
    "Input",
    "InputTimeout",
    "Interrupt",
    "MCPServer",
    "MessageStream",
    "PastRun",
    "Request",
    "RunContext",
    "TextPart",
    "ThinkingStream",
    "ToolError",
    "Usage",
    "shared",
    "tool",
]

_HOMES = {
    "Agent": "agent",
    "AgentError": "errors",
    "Client": "client",
    "Credential": "credential",
    "FilePart": "input",
    "ImagePart": "input",
    "Input": "input",
    "InputTimeout": "errors",
    "Interrupt": "interrupt",
    "MCPServer": "mcp",
    "MessageStream": "message",
    "PastRun": "history",
    "Request": "interrupt",
    "RunContext": "context",
    "TextPart": "input",
    "ThinkingStream": "message",
    "ToolError": "errors",
    "Usage": "usage",
    "shared": "providers",
    "tool": "tools",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'factorychain' has no attribute {name!r}")
    # No exported name may be a module's name as well (hence `tools`): importing that module anywhere
    # would make the name mean the module.
    value: object = getattr(import_module(f"factorychain.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
