"""The chain under chaos as its driver has it: where it is, and what can be done to its parts.

Invariant: what was done is undone when the block is left, and every process has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.disk import Disk
from tests.e2e.chain import ROOT, Chain, environment

_READY_S = 90.0
_BACK_S = 60.0


class ChainFailed(Exception):
    """The chain did not start, or a part of it did not come back."""


@dataclass(slots=True)
class ChaosChain:
    """A chain and the tools to break it."""

    chain: Chain
    edge: str
    disk: Disk | None
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def token(self, user: str) -> str:
        """A token that lives as long as the test."""
        return self.chain.token(user, ttl_s=7200)

    async def order(self, **what: str) -> dict[str, object]:
        """Have the host do something; its answer."""
        async with self._turn:
            self._writer.write(json.dumps(what).encode() + b"\n")
            answer: dict[str, object] = json.loads(await self._reader.readline())
        return answer

    def signal(self, process: str, number: signal.Signals) -> int:
        """Send a signal to the process of a layer; the pid that it has now.

        Raises:
            ProcessLookupError: it is gone.
        """
        pids = self.chain.state.pids.get(process, [])
        if not pids:
            raise ProcessLookupError(process)
        os.kill(pids[0], number)
        return pids[0]

    def disk_errors(self) -> int:
        """How often NATS has found no room."""
        return self.chain.data.nats_log.read_text(errors="replace").count("no space left on device")

    async def back(self, process: str, old_pid: int) -> None:
        """Return when another process has taken its place.

        Raises:
            ChainFailed: none did in time.
        """
        try:
            await self.chain.restarted(process, old_pid, _BACK_S)
        except TimeoutError:
            raise ChainFailed(f"{process} was not started again in {_BACK_S:.0f} s") from None


@contextlib.asynccontextmanager
async def chaos_chain(
    folder: Path, env: Mapping[str, str], disk_bytes: int
) -> AsyncIterator[ChaosChain]:
    """A running chain; `disk_bytes` 0: its store is on the disk that is there."""
    (folder / "data").mkdir(parents=True)
    with (
        _disk(folder / "data" / "nats", disk_bytes) as disk,
        (folder / "chain.log").open("wb") as log,
    ):
        paths = [folder / "data", folder / "ready.json", folder / "control.sock"]
        process = subprocess.Popen(  # noqa: ASYNC220 - a fork and an exec, no waiting
            [sys.executable, "-m", "tests.chaos.host", *map(str, paths)],
            env=environment(env), cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        chain = Chain(process, folder, paths[1], folder / "chain.log")
        try:
            await _ready(chain, paths[2])
            reader, writer = await asyncio.open_unix_connection(str(paths[2]))
            running = ChaosChain(chain, "", disk, reader, writer)
            running.edge = str((await running.order(do="edge"))["edge"])
            yield running
            writer.close()
        finally:
            await chain.stop()


async def _ready(chain: Chain, control: Path) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_READY_S):
            while not (chain.ready_file.exists() and control.exists()):
                if chain.process.poll() is not None:
                    break
                await asyncio.sleep(0.05)
            else:
                return
    raise ChainFailed(f"the chain did not start:\n{chain.log()[-4000:]}")


@contextlib.contextmanager
def _disk(path: Path, size_bytes: int) -> Iterator[Disk | None]:
    if not size_bytes:
        yield None
        return
    disk = Disk(path, size_bytes)
    if not disk.mount():
        yield None
        return
    try:
        yield disk
    finally:
        disk.unmount()
