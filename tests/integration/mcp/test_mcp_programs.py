"""Tools of MCP servers that are programs, one for each run."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from typing import Any

import pytest

from factorychain import Agent, RunContext, tool
from factorychain._instance.definition import BadAgent, define
from factorychain._instance.spec import OutcomeKind
from factorychain._mcp import stdio
from factorychain.errors import InputTimeout
from factorychain.mcp import MCPServer
from factorychain.testing import run_async
from tests.integration.mcp.running import calls, is_running, outputs, started, with_servers
from tests.integration.mcp.samples import PLAIN, Caller, Official, program
from tests.waiting import until_true

WORD = {"word": "mine"}


async def test_the_official_sdk_on_both_ends() -> None:
    """Results of every form, progress, errors and a death in the middle, with one start of the program."""
    made = calls(
        ("add", {"a": 1, "b": 2}),
        ("weather", {"city": "Turin"}),
        ("words", {"count": 2}),
        ("picture", {}),
        ("fails", {"why": "late"}),
        ("add", {"a": "one", "b": 2}),
        ("add", {"a": 1}),
        ("nothing", {}),
        ("dies", {}),
        ("add", {"a": 1, "b": 2}),
    )
    result = await run_async(Official, made)
    output: Any = result.output
    assert output[:3] == [3, {"city": "Turin", "degrees": 21}, "done"]
    text, image = output[3]
    assert text == {"text": "a dot"}
    assert (image["media_type"], image["data"]) == ("image/png", "iVBORw==")
    assert output[4:7] == [
        "TOOL_ERROR: Error executing tool fails: it is late",
        "INVALID_ARGUMENTS: add: a: 'one' is not of type 'integer'",
        "INVALID_ARGUMENTS: add: 'b' is a required property",
    ]
    assert output[7].startswith("TOOL_NOT_FOUND: There is no tool 'nothing'; there are: add, wea")
    lost = "TOOL_SERVER_LOST: The tool server tools has ended"
    assert output[8:] == [lost, lost]
    words = result.of_type("tool_executing")[2].data["call"]
    assert [each.data for each in result.of_type("tool_progress")] == [
        {"call": words, "data": {"progress": at, "total": 2, "message": f"word {at}"}}
        for at in (1, 2)
    ]
    done = [each.data["ok"] for each in result.of_type("tool_completed")]
    assert done == [True] * 4 + [False] * 5


async def test_schemas_are_the_server_s() -> None:
    class Lists(Agent):
        processes = True
        tools = (program(),)

        async def run(self, ctx: RunContext, text: str) -> object:
            return {each["name"]: each["input_schema"] for each in ctx.tools.schemas}

    found: Any = (await run_async(Lists)).output
    assert found["add"]["required"] == ["a", "b"]
    assert found["add"]["properties"] == {"a": {"type": "integer"}}


async def test_the_program_is_gone_with_its_run_and_never_shared() -> None:
    made = calls(("remember", WORD), ("about", {}))
    first, second = await asyncio.gather(run_async(Caller, made), run_async(Caller, made))
    outputs: list[Any] = [first.output, second.output]
    assert [each[0] for each in outputs] == [["mine"], ["mine"]]
    pids = {each[1]["pid"] for each in outputs}
    assert len(pids) == 2
    assert not any(map(is_running, pids))


async def test_the_program_sees_what_it_is_given_and_no_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of the run")
    monkeypatch.setenv("WEATHER_KEY", "declared")
    by_value = with_servers(program(env={"COLOUR": "blue"}))
    by_name = with_servers(program(env=["WEATHER_KEY", "NOT_SET"]))
    for agent, seen in ((by_value, {"COLOUR": "blue"}), (by_name, {"WEATHER_KEY": "declared"})):
        env = (await outputs(("about", {}), agent=agent))[0]["env"]
        assert seen.items() <= env.items()
        assert "OPENAI_API_KEY" not in env
        assert "PATH" in env


async def test_names_are_kept_apart_by_a_prefix_and_chosen_by_only() -> None:
    agent = with_servers(program(prefix="one"), program(only=["add", "about"]))
    both = await outputs(("one_add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4}), agent=agent)
    assert both == [3, 7]
    refused = await outputs(("remember", WORD), agent=agent)
    assert str(refused[0]).startswith("TOOL_NOT_FOUND")


@pytest.mark.parametrize("own", [True, False])
async def test_a_name_that_is_taken_says_how_to_keep_them_apart(
    own: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    @tool
    async def add() -> None:
        """Of the agent."""

    listed = (add, program()) if own else (program(), program())
    agent = type("Clash", (Caller,), {"tools": listed, "__module__": __name__})
    result = await run_async(agent, "[]")
    assert result.ending.data["reason"] == "AGENT_FAILED"
    assert "has a tool 'add', which the agent has already: give" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("server", "logged"),
    [
        (lambda: MCPServer(command="no-such-program"), "No such file or directory"),
        (lambda: MCPServer(command=sys.executable, args=["-c", "1"]), "Connection closed"),
        (lambda: program(only=["divide"]), "has no tool 'divide'"),
        (
            lambda: MCPServer(
                command=sys.executable,
                args=["-c", "import time; time.sleep(60)"],
                start_timeout_s=0.3,
            ),
            "TimeoutError",
        ),
    ],
)
async def test_a_server_that_does_not_start_ends_the_run_with_its_name(
    server: Any, logged: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stdio, "_LEAVING_S", 0.1)
    made = server()
    result = await run_async(with_servers(made), "[]")
    assert result.ending.data["reason"] == "TOOL_SERVER_UNAVAILABLE"
    assert made.name in str(result.ending.data["message"])
    assert logged in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answers", "heard"),
    [
        ([{"size": 42}], {"action": "accept", "content": {"size": 42}}),
        ([InputTimeout()], {"action": "cancel"}),
    ],
)
async def test_a_server_that_asks_something_asks_the_run_s_user(
    answers: list[Any], heard: dict[str, Any]
) -> None:
    result = await run_async(Caller, calls(("order", {})), answers=answers)
    assert result.output == [heard]
    asked = result.of_type("input_requested")[0].data
    assert asked["prompt"] == "tools asks: Which size?"
    assert asked["schema"] == {
        "type": "object",
        "properties": {"size": {"type": "integer"}},
        "required": ["size"],
    }


async def test_a_time_limit_ends_a_call_and_the_server_hears_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    agent = with_servers(program(timeout_s=0.2))
    found = await outputs(("hangs", {}), ("add", {"a": 1, "b": 2}), agent=agent)
    assert found == ["TOOL_TIMEOUT: hangs did not finish within 0.2 s", 3]
    assert "[tools] cancelled" in capsys.readouterr().err


async def test_a_cancel_in_the_middle_of_a_call_ends_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pids: list[int] = []
    end = stdio.Program.end

    async def noted(program: stdio.Program) -> None:
        pids.append(program.process.pid)
        await end(program)

    monkeypatch.setattr(stdio.Program, "end", noted)
    running = await started(Caller, ("hangs", {}))
    await until_true(lambda: "[tools] hanging" in capsys.readouterr().err)
    running.cancel()
    assert (await running).kind is OutcomeKind.CANCELLED
    assert len(pids) == 1
    assert not is_running(pids[0])


async def test_a_program_that_does_not_end_is_ended_with_what_it_has_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stdio, "_LEAVING_S", 0.1)
    monkeypatch.setattr(stdio, "_TERMINATING_S", 0.1)
    stubborn = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.run(sys.argv[1:])\n"
        "time.sleep(60)\n"
    )
    server = program(args=["-S", "-c", stubborn, sys.executable, "-S", PLAIN])
    about = (await outputs(("about", {}), agent=with_servers(server)))[0]
    await until_true(lambda: not is_running(about["pid"]))


def test_a_class_that_does_not_declare_what_a_server_needs_says_what_is_missing() -> None:
    class Undeclared(Caller):
        processes = False

    class Far(Agent):
        tools = (MCPServer(url="https://tools.example.com/mcp"),)

        async def run(self, ctx: RunContext) -> None: ...

    class Near(Far):
        tools = (MCPServer(url="http://127.0.0.1:8000/mcp"),)

    class Trusted(Undeclared):
        isolation = "task"

    with pytest.raises(BadAgent, match=r"'tools'.* set `processes = True` on the class"):
        define(Undeclared)
    with pytest.raises(BadAgent, match=r"add 443, and 53 to look its name up, to `network_ports`"):
        define(Far)
    with pytest.raises(BadAgent, match=r"add 8000 to `network_ports`"):
        define(Near)
    assert define(Trusted).sources


def test_arguments_that_contradict_each_other_are_refused() -> None:
    for arguments in (
        {},
        {"command": "a", "url": "http://127.0.0.1:1"},
        {"url": "http://127.0.0.1:1", "args": ["a"]},
        {"command": "a", "headers": {"a": "b"}},
    ):
        with pytest.raises(TypeError, match="MCPServer: "):
            MCPServer(**arguments)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'factorychain\[mcp\]'"):
        MCPServer(command="a")


async def test_a_cancel_while_a_program_starts_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdio, "_LEAVING_S", 0.1)
    begun: list[int] = []
    spawn = stdio.Program.started

    async def noted(server: MCPServer) -> stdio.Program:
        program = await spawn(server)
        begun.append(program.process.pid)
        return program

    monkeypatch.setattr(stdio.Program, "started", noted)
    silent = program(args=["-S", "-c", "import time; time.sleep(60)"])
    running = await started(with_servers(silent))
    await until_true(lambda: begun)
    running.cancel()
    assert (await running).kind is OutcomeKind.CANCELLED
    await until_true(lambda: not is_running(begun[0]))
