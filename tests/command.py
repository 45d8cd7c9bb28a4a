"""The `factorychain` command as a user types it, in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from factorychain.local.state import ChainState

ROOT = Path(__file__).parents[1]
_START_S = 200.0
_STOP_S = 90.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Command:
    """The command as one installation has it, typed in one folder."""

    cwd: Path
    argv: Sequence[str] = (sys.executable, "-m", "factorychain.cli")
    env: Mapping[str, str] = field(default_factory=lambda: {"PYTHONPATH": str(ROOT)})

    async def __call__(self, *arguments: str, **variables: str) -> Finished:
        process = await self.started(*arguments, **variables)
        return await finished(process)

    async def started(self, *arguments: str, **variables: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.argv,
            *arguments,
            cwd=self.cwd,
            env=self.environment(variables),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """A user's shell, without what this one says about a chain, about tracing or about Python."""
        ours = ("FACTORYCHAIN_", "OTEL_", "PYTHON", "VIRTUAL_ENV", "COLUMNS")
        env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return env | {"COLUMNS": "160"} | dict(self.env) | dict(variables)


async def finished(process: asyncio.subprocess.Process, timeout_s: float = 90.0) -> Finished:
    out, err = await asyncio.wait_for(process.communicate(), timeout_s)
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


@dataclass(slots=True)
class Up:
    """A running `factorychain up`."""

    process: subprocess.Popen[bytes]
    command: Command
    data: Path
    ready_file: Path
    log_file: Path

    @property
    def state(self) -> ChainState:
        found = ChainState.read(self.ready_file)
        assert found is not None, self.log()
        return found

    def log(self) -> str:
        """What its terminal shows."""
        return self.log_file.read_text(errors="replace")

    async def ready(self) -> None:
        async with asyncio.timeout(_START_S):
            while not self.ready_file.exists():
                assert self.process.poll() is None, f"`up` ended:\n{self.log()}"
                await asyncio.sleep(_POLL_S)

    async def shows(self, text: str, timeout_s: float = 60.0) -> None:
        """Returns when the terminal shows a text."""
        async with asyncio.timeout(timeout_s):
            while text not in self.log():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(_POLL_S)

    async def ended(self) -> int:
        return await asyncio.to_thread(self.process.wait, _STOP_S)

    def pids(self) -> list[int]:
        return [pid for pids in self.state.pids.values() for pid in pids]


def start_up(command: Command, folder: Path, *arguments: str, **variables: str) -> Up:
    """`up` on a data directory in the folder; whoever starts it stops it."""
    folder.mkdir(parents=True, exist_ok=True)
    data, ready_file, log_file = folder / "data", folder / "ready.json", folder / "up.log"
    argv = [*command.argv, "up", "--data", str(data), "--ready-file", str(ready_file)]
    if "--port" not in arguments:
        argv += ["--port", "0"]
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [*argv, *arguments],
            cwd=command.cwd,
            env=command.environment(variables),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    return Up(process, command, data, ready_file, log_file)


@contextlib.asynccontextmanager
async def running_up(
    command: Command, folder: Path, *arguments: str, **variables: str
) -> AsyncIterator[Up]:
    """`up`, ready; it has stopped cleanly when the block is left."""
    chain = start_up(command, folder, *arguments, **variables)
    try:
        await chain.ready()
        yield chain
    finally:
        if chain.process.poll() is None:
            chain.process.send_signal(signal.SIGINT)
        try:
            status = await chain.ended()
        except subprocess.TimeoutExpired:
            chain.process.kill()
            raise
    assert status == 0, f"`up` ended with {status}:\n{chain.log()[-4000:]}"


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
