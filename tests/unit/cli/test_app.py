"""The command's parts: each says what it does, and refuses before it starts anything."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from factorychain._sandbox import Feature, Support
from factorychain.cli import up
from factorychain.cli.app import app
from factorychain.local import sources
from factorychain.local.datadir import DataDir
from factorychain.local.ports import free_ports

COMMANDS = {each.callback.__name__ for each in app.registered_commands if each.callback}
OPTIONS = {
    "up": ("--port", "--data", "--agents", "--docs", "--isolation", "--reload", "--ready-file"),
    "token": ("--user", "--tenant", "--ttl", "--data"),
    "run": ("--user", "--agent", "--thread", "--json", "TEXT", "--tenant", "--data"),
    "agents": ("--user", "--data"),
    "status": ("--data",),
    "config": ("--check",),
    "demo": ("--docs",),
    "new": ("NAME", "--in"),
}


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("FACTORYCHAIN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")


def typed(*arguments: str) -> tuple[int, str]:
    """Exit status, and everything that was written."""
    found = CliRunner().invoke(app, list(arguments))
    return found.exit_code, found.output


def refusal(*arguments: str) -> str:
    status, said = typed(*arguments)
    assert status == 2
    assert "Traceback" not in said
    return " ".join(said.split())


def test_every_command_is_known_here() -> None:
    assert set(OPTIONS) <= COMMANDS


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_command_says_what_it_does_and_takes(command: str) -> None:
    status, said = typed(command, "--help")
    assert status == 0
    assert [each for each in OPTIONS.get(command, ()) if each not in said] == []
    assert len(said.splitlines()[3]) > 20


def test_alone_it_lists_its_commands() -> None:
    _, said = typed()
    assert [each for each in COMMANDS if each not in said] == []


def test_it_says_its_version() -> None:
    status, said = typed("--version")
    assert status == 0
    assert said.startswith("factorychain ")


def test_a_busy_port_is_refused_with_another_to_try(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port)):
        said = refusal("up", "--port", str(port), "--data", str(tmp_path))
    assert f"port {port} is in use" in said
    assert f"try: factorychain up --port {port + 1}" in said


def test_documents_that_are_not_there_or_empty_are_refused(tmp_path: Path) -> None:
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.mkdir()
    (empty / "picture.png").write_bytes(b"\x89PNG")
    assert f"{missing} does not exist" in refusal("up", "--docs", str(missing))
    assert f"{empty} has no text to read" in refusal("up", "--docs", str(empty))
    assert "is not a folder" in refusal("up", "--docs", str(empty / "picture.png"))
    assert "there is no such folder" in refusal("demo", "--docs", str(missing))


def test_an_unknown_isolation_is_refused_with_those_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "'thread' is not one of 'process', 'task'" in refusal("up", "--isolation", "thread")
    monkeypatch.setenv("FACTORYCHAIN_ISOLATION", "thread")
    said = refusal("up")
    assert "FACTORYCHAIN_ISOLATION" in said
    assert "'thread' is not one of 'process', 'task'" in said


def test_what_confines_nothing_is_refused_where_it_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORYCHAIN_REQUIRE_SANDBOX", "true")
    said = refusal("up", "--isolation", "task", "--data", str(tmp_path))
    assert "--isolation task confines nothing" in said
    assert "try: --isolation process" in said
    monkeypatch.setattr(up, "probe", lambda: Support(landlock_abi=5, seccomp=True))
    said = refusal("up", "--isolation", "process", "--data", str(tmp_path))
    assert "FACTORYCHAIN_REQUIRE_SANDBOX is set, and this kernel has" in said
    assert "no landlock_scopes: " in said
    assert list(tmp_path.iterdir()) == []


def test_what_the_kernel_cannot_confine_by_is_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "probe", lambda: Support(landlock_abi=0, seccomp=False))
    directory = DataDir(tmp_path / "data")
    directory.prepare()  # a chain runs on it: so far, and no farther
    arguments = ("up", "--port", "0", "--data", str(directory.path), "--isolation")
    said = refusal(*arguments, "process")
    assert said.count("Agents are contained less than they could be: no ") == len(Feature)
    assert "agents are not contained" in refusal(*arguments, "task")
    directory.release()


def test_a_folder_that_is_too_large_to_watch_is_refused_unless_agents_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "MOST_FILES", 1)
    for name in ("greeter.py", "other.py"):
        (tmp_path / name).write_text("")
    said = refusal("up", "--port", "0", "--reload")
    assert f"--reload: {tmp_path} has more than 1 Python files below it" in said
    assert "try: the folder of your agents" in said


def test_a_wrong_variable_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORYCHAIN_USER_MAX_RUNS", "many")
    said = refusal("up", "--port", "0", "--data", str(tmp_path))
    assert "FACTORYCHAIN_USER_MAX_RUNS: " in said
    assert list(tmp_path.iterdir()) == []


def test_a_data_directory_that_a_chain_runs_on_is_refused(tmp_path: Path) -> None:
    directory = DataDir(tmp_path / "data")
    directory.prepare()
    assert "a chain already runs" in refusal("up", "--port", "0", "--data", str(directory.path))
    directory.release()


@pytest.mark.parametrize(
    "arguments", [["run", "--user", "ada", "hi"], ["agents"], ["status"]], ids=lambda each: each[0]
)
def test_without_a_chain_a_command_says_how_to_start_one(
    arguments: list[str], tmp_path: Path
) -> None:
    said = refusal(*arguments, "--data", str(tmp_path / "none"))
    assert "no chain is up" in said
    assert "try: factorychain up" in said


@pytest.mark.parametrize("command", ["run", "token"])
def test_nobody_acts_without_saying_as_whom(command: str) -> None:
    assert "Missing option '--user'" in refusal(command, *(["hi"] if command == "run" else []))
