"""Runs of agents with MCP servers in this process."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import orjson

from factorychain import Agent
from factorychain._instance.active import ActiveRun
from factorychain._instance.definition import define
from factorychain._instance.injection import Injection
from factorychain._instance.runner import run_agent
from factorychain._instance.spec import Outcome, RunSpec
from factorychain.mcp import MCPServer
from factorychain.testing import run_async
from tests.integration.mcp.samples import Caller
from tests.silent_host import SilentHost


def calls(*made: tuple[str, dict[str, Any]]) -> str:
    return orjson.dumps(made).decode()


async def outputs(*made: tuple[str, dict[str, Any]], agent: type[Agent] = Caller) -> list[Any]:
    result = await run_async(agent, calls(*made))
    assert isinstance(result.output, list), result.ending
    return result.output


def with_servers(*servers: MCPServer) -> type[Caller]:
    return type("Caller", (Caller,), {"tools": servers, "__module__": Caller.__module__})


async def started(agent: type[Agent], *made: tuple[str, dict[str, Any]]) -> asyncio.Task[Outcome]:
    """A run that a test cancels when it wants to."""
    definition = define(agent)
    injection = Injection(sys.modules[agent.__module__], [definition])
    await injection.start()
    text = orjson.dumps({"text": calls(*made)}).decode()
    trace = f"00-{1:032x}-{1:016x}-01"
    spec = RunSpec("acme", "ada", "t", "r", definition.name, 1, text, trace=trace)
    run = ActiveRun(spec, SilentHost(), asyncio.get_running_loop())
    return asyncio.create_task(run_agent(run, definition, injection))


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
