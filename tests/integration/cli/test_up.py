"""`up`: what it starts, what it tells, how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from factorychain.local.datadir import DataDir
from factorychain.local.readiness import layer_serves
from tests.command import Command, Up, alive, running_up, start_up
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

LAYERS = ("engine", "agents", "emitter", "bridge")
SECRETS = {
    "engine": {"txn_key_file", "nats_password_file", "user_secret_file"},
    "bridge": {"nats_password_file", "user_secret_file"},
    "agents": set[str](),
    "emitter": set[str](),
}


async def test_the_ready_file_says_where_everything_is_and_no_credential(up: Up) -> None:
    text = up.ready_file.read_text()
    written = json.loads(text)
    assert list(written) == ["edge", "engine", "agents", "emitter", "bridge", "nats", "pids"]
    assert written["edge"].startswith("http://127.0.0.1:")
    assert written["nats"].startswith("nats://127.0.0.1:")
    for layer in LAYERS:
        assert written[layer].startswith("127.0.0.1:")
        (pid,) = written["pids"][layer]
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        assert arguments[1:4] == [b"-P", b"-m", f"factorychain_{layer}".encode()]
    assert written["pids"].keys() == {*LAYERS, "nats"}
    data = DataDir(up.data)
    passwords = [data.nats_password(each) for each in ("engine", "bridge")]
    assert not [each for each in [*passwords, data.user_secret.decode()] if each in text]


async def test_a_process_has_the_secrets_of_its_layer_only_and_none_where_others_look(
    up: Up,
) -> None:
    data = DataDir(up.data)
    secrets = [data.user_secret, data.txn_key.split(b"\n")[1]]
    secrets += [data.nats_password(each).encode() for each in ("engine", "bridge")]
    for layer in LAYERS:
        process = Path(f"/proc/{up.state.pids[layer][0]}")
        opened = [str(each.readlink()) for each in (process / "fd").iterdir()]
        held = {
            each.removeprefix("/memfd:factorychain-").split(" ")[0]
            for each in opened
            if "memfd:factorychain" in each
        }
        assert held == SECRETS[layer]
        shown = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        assert not [each for each in secrets if each in shown]


async def test_a_second_chain_on_the_data_directory_is_refused(up: Up, command: Command) -> None:
    said = await command("up", "--port", "0", "--data", str(up.data))
    assert said.status == 2
    assert "a chain already runs on this data directory" in said.err
    assert (await command("status", "--data", str(up.data))).status == 0


@pytest.mark.parametrize("layer", ["agents", "bridge"])
async def test_a_killed_process_comes_back_where_it_was_and_the_ready_file_says_so(
    up: Up, layer: str
) -> None:
    before = up.state
    os.kill(before.pids[layer][0], signal.SIGKILL)

    async def back() -> bool:
        pids = up.state.pids[layer]
        return bool(pids) and pids != before.pids[layer]

    await until(back, 20)
    await up.shows(f"{layer} exited by SIGKILL")
    after = up.state
    assert getattr(after, layer) == getattr(before, layer)
    assert {**after.pids, layer: before.pids[layer]} == before.pids

    async def serves() -> bool:
        if not await layer_serves(getattr(up.state, layer)):  # a command takes longer to find out
            return False
        return (await up.command("status", "--data", str(up.data))).status == 0

    await until(serves, 20)
    asked = await up.command(
        "run", "--user", "ada", "--data", str(up.data), "--agent", "says", "again"
    )
    assert (asked.status, asked.out) == (0, "again\n")


async def test_agents_that_cannot_be_loaded_end_it_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "breaks.py").write_text("raise RuntimeError('a bad day')")
    chain = start_up(Command(tmp_path), tmp_path / "chain", "--agents", "breaks")
    assert await chain.ended() == 2
    said = chain.log()[chain.log().rindex("error: ") :]
    assert said.startswith("error: agents does not start: breaks cannot be imported:")
    assert "RuntimeError: a bad day" in said
    assert 'breaks.py", line 1' in said
    assert "importlib" not in said
    assert not chain.ready_file.exists()
    assert not DataDir(chain.data).is_locked()


async def test_reload_restarts_the_agents_with_what_was_changed_also_after_a_mistake(
    tmp_path: Path,
) -> None:
    module = tmp_path / "changing.py"
    source = "from factorychain import Agent\nclass Says(Agent):\n    async def run(self, ctx, text: str) -> str:\n        return {!r}\n"
    module.write_text(source.format("before"))
    command = Command(tmp_path)
    arguments = ("--agents", "changing", "--reload")
    async with running_up(command, tmp_path / "chain", *arguments) as chain:
        ask = ("run", "--user", "ada", "--data", str(chain.data), "--agent", "says", "x")
        assert (await command(*ask)).out == "before\n"
        module.write_text("this is no Python")
        await chain.shows("SyntaxError")
        module.write_text(source.format("after"))

        async def answers() -> bool:
            if not await layer_serves(chain.state.agents):  # a command takes longer to find out
                return False
            return (await command(*ask)).out == "after\n"

        await until(answers, 30)
        assert chain.process.poll() is None


async def test_what_it_says_to_type_next_works_as_it_stands(up: Up, command: Command) -> None:
    (line,) = [each for each in up.log().splitlines() if each.startswith("  token: ")]
    typed = shlex.split(line.removeprefix("  token: "))
    process = await asyncio.create_subprocess_exec(
        *typed, cwd=command.cwd, env=command.environment({}), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert out.count(b".") == 2


async def test_a_stop_before_it_is_up_leaves_nothing_either(
    command: Command, tmp_path: Path
) -> None:
    chain = start_up(command, tmp_path)
    await chain.shows("Starting the chain")
    chain.process.send_signal(signal.SIGINT)
    assert await chain.ended() == 0
    assert "Traceback" not in chain.log()
    assert _children_of(chain.process) == []
    assert not DataDir(chain.data).is_locked()


async def test_told_twice_it_does_not_wait_for_what_does_not_stop(
    command: Command, tmp_path: Path
) -> None:
    drain = {"FACTORYCHAIN_DRAIN_TIMEOUT_S": "200"}
    async with running_up(command, tmp_path, "--agents", "deskagents", **drain) as chain:
        pids = chain.pids()
        ask = ("run", "--user", "ada", "--data", str(chain.data), "--agent", "clings", "x")
        process = await command.started(*ask)
        assert process.stderr is not None
        while b"clinging" not in await process.stderr.readline():
            pass
        chain.process.send_signal(signal.SIGINT)
        await chain.shows("Stopping")
        chain.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(60):
            assert await chain.ended() == 0
        process.kill()
        await process.communicate()
    assert [pid for pid in pids if alive(pid)] == []


async def test_killed_itself_it_leaves_no_child_and_the_directory_is_free(
    command: Command, tmp_path: Path
) -> None:
    chain = start_up(command, tmp_path)
    await chain.ready()
    pids = chain.pids()
    chain.process.kill()
    await chain.ended()

    async def gone() -> bool:
        return not [pid for pid in pids if alive(pid)]

    await until(gone)
    assert DataDir(chain.data).running() is None
    said = await command("status", "--data", str(chain.data))
    assert "no chain is up" in said.err


async def test_on_a_terminal_it_shows_what_agents_print_no_chatter_and_ends_on_sigterm(
    command: Command, tmp_path: Path
) -> None:
    ready = tmp_path / "ready.json"
    data = ("--data", str(tmp_path / "data"))
    arguments = ("up", "--port", "0", *data, "--ready-file", str(ready), "--agents", "deskagents")
    process, ours = _on_a_terminal(command, *arguments)
    shown: list[bytes] = []
    reading = asyncio.create_task(asyncio.to_thread(_read_all, ours, shown))

    async def up() -> bool:
        return ready.exists()

    await until(up, 60)
    asked = await command("run", "--user", "ada", *data, "--agent", "prints", "--json", "this")
    pids = [pid for each in json.loads(ready.read_text())["pids"].values() for pid in each]
    process.terminate()
    assert await asyncio.to_thread(process.wait, 40) == 0
    assert len(pids) == 5
    assert [pid for pid in pids if alive(pid)] == []
    assert not ready.exists()
    await reading
    os.close(ours)
    run = json.loads(asked.out.splitlines()[0])["run"]
    text = b"".join(shown).decode()
    assert f"[{run}] printed this" in text
    assert f"[{run}] ValueError: a bug near this" in text
    assert "The chain is up." in text
    assert "[info" not in text


def _on_a_terminal(command: Command, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """The command with a terminal, and the other end of that."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*command.argv, *arguments],
        cwd=command.cwd,
        env=command.environment({"TERM": "xterm"}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    return process, ours


def _read_all(terminal: int, shown: list[bytes]) -> None:
    try:
        while part := os.read(terminal, 65_536):
            shown.append(part)
    except OSError:  # nobody has it open any more
        return


def _children_of(process: subprocess.Popen[bytes]) -> list[int]:
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            try:
                stat = (each / "stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == process.pid:
                found.append(int(each.name))
    return found
