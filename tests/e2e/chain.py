"""A chain under test: `factorychain up` as a user starts it, its log kept, its spans collected."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from factorychain._core.ids import Principal
from factorychain._core.user_tokens import mint_user_token
from factorychain.local.datadir import DataDir
from factorychain.local.state import ChainState

ROOT = Path(__file__).resolve().parents[2]
AGENTS = "tests.e2e.agents"
_START_S = 200.0


@dataclass(slots=True)
class Chain:
    """A running chain."""

    process: subprocess.Popen[bytes]
    folder: Path
    ready_file: Path
    log_file: Path

    @property
    def state(self) -> ChainState:
        """Where everything is now; read again after a restart."""
        state = ChainState.read(self.ready_file)
        assert state is not None, self.log()
        return state

    @property
    def data(self) -> DataDir:
        """The chain's data directory."""
        return DataDir(self.folder / "data")

    def token(
        self, user: str, tenant: str = "default", ttl_s: float = 600, *, plan: str = ""
    ) -> str:
        """A good token for a user; with `plan` it names that plan."""
        return mint_user_token(
            self.data.user_secret,
            Principal(tenant, user),
            ttl_s=ttl_s,
            audience="factorychain-api",
            further={"plan": plan} if plan else None,
        )

    def log(self) -> str:
        """Everything that the chain's processes have written so far."""
        return self.log_file.read_text(errors="replace")

    def pid(self, layer: str) -> int:
        """The pid of a layer's only process."""
        (pid,) = self.state.pids[layer]
        return pid

    async def restarted(self, layer: str, old_pid: int, timeout_s: float = 90) -> int:
        """Waits until `up` has started the layer again; its new pid."""
        async with asyncio.timeout(timeout_s):
            while True:
                pids = self.state.pids.get(layer, [])
                if pids and pids != [old_pid]:
                    return pids[0]
                await asyncio.sleep(0.05)

    async def stop(self) -> int:
        """Stops it as ^C does; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return await asyncio.to_thread(self.process.wait, 90)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a user's shell, without what this shell says about a chain or about tracing."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("FACTORYCHAIN_", "OTEL_"))}
    return env | {"PYTHONPATH": str(ROOT)} | dict(extra or {})


@contextlib.asynccontextmanager
async def running_chain(
    folder: Path,
    arguments: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    *,
    cwd: Path = ROOT,
) -> AsyncIterator[Chain]:
    """Starts a chain with the test agents; it has stopped cleanly when the block is left."""
    folder.mkdir(parents=True, exist_ok=True)
    ready_file, log_file = folder / "ready.json", folder / "chain.log"
    command = [
        sys.executable, "-m", "factorychain.cli", "up", "--port", "0", "--agents", AGENTS,
        "--data", str(folder / "data"), "--ready-file", str(ready_file), *arguments,
    ]  # fmt: skip
    with log_file.open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - a fork and an exec, no waiting
            command, env=environment(env), cwd=cwd, stdout=log, stderr=log
        )
    chain = Chain(process, folder, ready_file, log_file)
    try:
        await _ready(chain)
        yield chain
    finally:
        status = await chain.stop()
        assert status == 0, f"`factorychain up` ended with {status}:\n{chain.log()[-4000:]}"


async def _ready(chain: Chain) -> None:
    async with asyncio.timeout(_START_S):
        while not chain.ready_file.exists():
            if chain.process.poll() is not None:
                raise AssertionError(f"`factorychain up` ended:\n{chain.log()[-4000:]}")
            await asyncio.sleep(0.05)
    json.loads(chain.ready_file.read_text())
