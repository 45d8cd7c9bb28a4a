"""`run`, `token`, `agents` and `status` against a chain that is up."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import sys
from typing import Any

import pytest

from tests.command import ROOT, Command, Finished, Up, finished
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def run(up: Up, *arguments: str, **variables: str) -> Finished:
    return await up.command("run", "--user", "ada", "--data", str(up.data), *arguments, **variables)


async def test_the_answer_goes_to_stdout_as_it_is_and_the_rest_to_stderr(up: Up) -> None:
    text = "[red]two[/]\n  lines :smile: " + "long " * 80
    said = await run(up, "--agent", "says", text)
    assert (said.status, said.out) == (0, f"{text}\n")
    lines = said.err.splitlines()
    assert [line.split()[0] for line in lines] == ["started", "thinking", "completed"]
    assert "[bold] is no markup" in lines[1]


async def test_a_streamed_answer_is_written_once(up: Up) -> None:
    said = await run(up, "--agent", "streams", "one two  three")
    assert (said.status, said.out) == (0, "one two  three \n")


@pytest.mark.parametrize(
    ("agent", "says"),
    [("refuses", "failed  CLOSED not today"), ("prints", "failed  AGENT_FAILED The agent failed")],
)
async def test_a_run_that_fails_is_status_one(up: Up, agent: str, says: str) -> None:
    said = await run(up, "--agent", agent, "x")
    assert (said.status, said.out) == (1, "")
    assert says in said.err
    assert "a bug near" not in said.err


async def test_what_an_agent_prints_and_its_traceback_appear_where_up_runs(up: Up) -> None:
    said = await run(up, "--agent", "prints", "here", "--json")
    failed = json.loads(said.out.splitlines()[-1])
    await up.shows("ValueError: a bug near here")
    lines = [json.loads(line) for line in up.log().splitlines() if f'"{failed["run"]}"' in line]
    printed = {line["stream"]: line["text"] for line in lines if "stream" in line}
    texts = "".join(line["text"] for line in lines if "stream" in line)
    assert printed["stdout"] == "printed here"
    assert "complained here" in texts
    assert "deskagents.py" in texts


async def test_an_agent_that_is_not_there_is_refused_with_those_that_are(up: Up) -> None:
    said = await run(up, "--agent", "nobody", "x")
    assert (said.status, said.out) == (2, "")
    assert "error: no agent is called 'nobody'; there are: " in said.err
    assert "try: factorychain agents" in said.err


async def test_json_is_one_event_object_a_line(up: Up) -> None:
    said = await run(up, "--agent", "says", "--thread", "t-json", "--json", "hello")
    assert said.status == 0
    events = [json.loads(line) for line in said.out.splitlines()]
    assert [event["type"] for event in events] == [
        "agent_started",
        "agent_thinking",
        "agent_completed",
    ]
    assert [event["seq"] for event in events] == [1, 2, 3]
    assert {event["thread"] for event in events} == {"t-json"}
    assert len({event["run"] for event in events}) == 1
    for event in events:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", event["at"])
        assert event.keys() >= {"seq", "run", "type", "at", "data", "trace"}
    assert events[0]["data"]["agent"] == "says"
    assert events[-1]["data"]["output"] == "hello"


async def test_a_thread_goes_on_where_it_was(up: Up) -> None:
    first = await run(up, "--agent", "says", "--thread", "t-on", "--json", "one")
    second = await run(up, "--agent", "says", "--thread", "t-on", "--json", "two")
    seqs = [json.loads(line)["seq"] for line in (first.out + second.out).splitlines()]
    assert seqs == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("json_lines", [False, True])
async def test_an_interrupt_cancels_the_run_and_shows_its_end(up: Up, json_lines: bool) -> None:
    options = ["--json"] if json_lines else []
    process = await up.command.started(
        "run", "--user", "ada", "--data", str(up.data), "--agent", "waits", *options, "x"
    )
    shown = process.stdout if json_lines else process.stderr
    assert shown is not None
    await _line_with(shown, b"waiting")
    process.send_signal(signal.SIGINT)
    said = await finished(process)
    assert said.status == 1
    assert "Traceback" not in said.err
    assert "exception" not in said.err
    if json_lines:
        ending = json.loads(said.out.splitlines()[-1])
        assert (ending["type"], ending["data"]["reason"]) == ("agent_cancelled", "USER")
    else:
        assert [line.split() for line in said.err.splitlines()] == [
            ["cancelling", "…"],
            ["cancelled", "USER"],
        ]


async def test_a_second_interrupt_leaves_at_once(up: Up) -> None:
    process = await up.command.started(
        "run", "--user", "cleo", "--data", str(up.data), "--agent", "clings", "x"
    )
    assert process.stderr is not None
    await _line_with(process.stderr, b"clinging")
    process.send_signal(signal.SIGINT)
    await _line_with(process.stderr, "cancelling …".encode())
    process.send_signal(signal.SIGINT)
    said = await finished(process, 5)
    assert said.status != 0
    assert "Traceback" not in said.err


async def test_a_third_run_is_refused_with_when_to_come_back(up: Up) -> None:
    command = ["run", "--user", "bea", "--data", str(up.data), "--agent", "waits", "x"]
    running = [await up.command.started(*command) for _ in range(2)]
    for process in running:
        assert process.stderr is not None
        await _line_with(process.stderr, b"waiting")
    refused = await up.command(*command)
    assert refused.status == 2
    assert "(USER_ENGINE_LIMIT)" in refused.err
    assert re.search(r"try: again in [\d.]+ s", refused.err)
    waiting = await up.command.started(*command, "--on-busy", "enqueue", "--json")
    assert waiting.stdout is not None
    queued = json.loads(await waiting.stdout.readline())
    assert (queued["type"], queued["data"]) == (
        "run_queued",
        {"position": 1, "input": {"text": "x"}},
    )
    running[0].send_signal(signal.SIGINT)
    assert json.loads(await waiting.stdout.readline())["type"] == "agent_started"
    for process in (running[1], waiting):
        process.send_signal(signal.SIGINT)
    running.append(waiting)
    assert [(await finished(process)).status for process in running] == [1, 1, 1]


async def test_a_token_is_good_for_its_time(up: Up) -> None:
    said = await up.command("token", "--user", "dora", "--ttl", "15m", "--data", str(up.data))
    token = said.out.strip()
    assert said.out == f"{token}\n"
    claims = _claims(token)
    assert (claims["sub"], claims["exp"] - claims["iat"]) == ("dora", 900)
    asked = await run(up, "--agent", "says", "mine", FACTORYCHAIN_TOKEN=token)
    assert (asked.status, asked.out) == (0, "mine\n")


async def test_a_token_that_is_none_is_refused(up: Up) -> None:
    said = await run(up, "--agent", "says", "x", FACTORYCHAIN_TOKEN="a.b.c")
    assert said.status == 2
    assert said.err.count("TOKEN_INVALID") == 1
    assert "another token in FACTORYCHAIN_TOKEN" in said.err


async def test_agents_are_listed_with_what_they_do(up: Up) -> None:
    said = await up.command("agents", "--data", str(up.data))
    assert said.status == 0
    rows = _rows(said.out)
    assert {"says", "waits", "researcher"} <= rows.keys()
    assert "Says what it was told, in one piece." in rows["says"]
    assert "researcher (default)" in rows["researcher"]


async def test_status_shows_every_part_with_its_address_and_process(up: Up) -> None:
    said = await up.command("status", "--data", str(up.data))
    assert said.status == 0
    rows = _rows(said.out)
    for layer, address in [("engine", up.state.engine), ("nats", up.state.nats)]:
        assert address in rows[layer]
        assert str(up.state.pids[layer][0]) in rows[layer]
        assert "yes" in rows[layer]


async def test_status_is_one_while_a_part_does_not_serve(up: Up) -> None:
    pid = up.state.pids["emitter"][0]
    os.kill(pid, signal.SIGSTOP)
    try:
        said = await up.command("status", "--data", str(up.data))
    finally:
        os.kill(pid, signal.SIGCONT)

    async def all_serve() -> bool:
        return (await up.command("status", "--data", str(up.data))).status == 0

    await until(all_serve)  # who asks next is not to be refused
    assert said.status == 1
    rows = _rows(said.out)
    assert "no" in rows["emitter"].split()
    assert "yes" in rows["engine"].split()


async def test_a_question_of_the_command_goes_to_the_researcher(up: Up, command: Command) -> None:
    said = await run(up, "What does the with statement do?")
    assert said.status == 0
    assert "topics/with" in said.out


async def test_the_command_collects_again_when_it_is_imported() -> None:
    asks = "import factorychain.cli, gc; print(gc.isenabled())"
    process = await Command(ROOT, [sys.executable, "-c", asks]).started()
    assert (await finished(process)).out == "True\n"


def _rows(table: str) -> dict[str, str]:
    """The lines of a table by their first word."""
    return {line.strip("│ ").split()[0]: line for line in table.splitlines() if "│" in line}


async def _line_with(stream: asyncio.StreamReader, text: bytes) -> None:
    async with asyncio.timeout(60):
        while text not in (line := await stream.readline()):
            assert line, f"the command ended without saying {text!r}"


def _claims(token: str) -> Any:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
