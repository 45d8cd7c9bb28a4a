"""Tools of an MCP server that is reached by HTTP: the official SDK on both ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from factorychain import Agent, RunContext
from factorychain._instance.spec import OutcomeKind
from factorychain.mcp import MCPServer
from factorychain.testing import run_async
from tests.integration.mcp.running import calls, started, with_servers
from tests.integration.mcp.samples import OFFICIAL, Caller
from tests.waiting import until_true

__all__ = ["served"]


class Served:
    """The server, a process."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/mcp"

    def agent(self, **more: Any) -> type[Caller]:
        made = with_servers(MCPServer(url=self.url, name="tools", **more))
        made.network_ports = (self.port,)
        return made


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    port_file = folder / "port"
    with subprocess.Popen([sys.executable, OFFICIAL, "http", str(port_file)]) as process:
        try:
            while not port_file.exists() or not port_file.read_text():
                assert process.poll() is None
                time.sleep(0.02)
            yield Served(int(port_file.read_text()))
        finally:
            process.kill()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as found:
        yield found


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Served]:
    """One that may be killed."""
    with serving(tmp_path) as found:
        yield found


async def test_results_progress_and_errors_and_a_death_in_the_middle(mortal: Served) -> None:
    made = calls(
        ("add", {"a": 1, "b": 2}),
        ("words", {"count": 2}),
        ("fails", {"why": "late"}),
        ("dies", {}),
        ("add", {"a": 1, "b": 2}),
    )
    result = await run_async(mortal.agent(headers={"x-team": "a"}), made)
    output: Any = result.output
    assert output[:3] == [3, "done", "TOOL_ERROR: Error executing tool fails: it is late"]
    assert [each.data["data"] for each in result.of_type("tool_progress")] == [
        {"progress": at, "total": 2, "message": f"word {at}"} for at in (1, 2)
    ]
    lost = "TOOL_SERVER_LOST: The tool server tools has ended"
    assert output[3:] == [lost, lost]


async def test_two_users_at_once_have_connections_of_their_own(served: Served) -> None:
    """The requests of both have the same ids; each gets its own answers."""

    def many(base: int) -> str:
        return calls(*[("add", {"a": base, "b": each}) for each in range(20)])

    agent = served.agent()
    ada, ben = await asyncio.gather(
        run_async(agent, many(100), user="ada"), run_async(agent, many(500), user="ben")
    )
    assert ada.output == [100 + each for each in range(20)]
    assert ben.output == [500 + each for each in range(20)]


async def test_a_cancel_in_the_middle_of_a_call_reaches_the_server(
    served: Served, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    running = await started(served.agent(), ("hangs", {"note": str(note)}))
    await until_true(note.exists)
    running.cancel()
    assert (await running).kind is OutcomeKind.CANCELLED
    await until_true(lambda: note.read_text() == "cancelled")


async def test_a_source_may_be_connected_in_the_middle_of_a_run(served: Served) -> None:
    class Late(Agent):
        async def run(self, ctx: RunContext, text: str) -> object:
            before = len(ctx.tools)
            user = {"authorization": f"of {ctx.user}"}
            await ctx.tools.connect(MCPServer(url=served.url, headers=user, prefix="far"))
            return [before, await ctx.tools.call("far_add", {"a": 1, "b": 2})]

    assert (await run_async(Late)).output == [0, 3]


async def test_a_server_that_is_not_there_ends_the_run_with_its_name(unused_port: int) -> None:
    agent = with_servers(MCPServer(url=f"http://127.0.0.1:{unused_port}/mcp"))
    agent.network_ports = (unused_port,)
    result = await run_async(agent, "[]")
    assert result.ending.data["reason"] == "TOOL_SERVER_UNAVAILABLE"
    assert f"127.0.0.1:{unused_port}" in str(result.ending.data["message"])


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
