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
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from factorychain._core.ids import Principal
from factorychain._core.user_tokens import mint_user_token
from factorychain.local.datadir import DataDir
from tests.chaos.disk import Disk
from tests.chaos.forms import SINGLE, Form
from tests.chaos.in_flight import runs_said
from tests.e2e.chain import ROOT, environment
from tests.e2e.replicated import user_token

READY_S = 150.0
STOPPED_S = 90.0
BACK_S = 90.0
_ORDER_S = 30.0
_POLL_S = 0.05
_SAID_WITHIN_S = 3.0
_TOKEN_S = 7200


class ChainFailed(Exception):
    """The chain did not start, or a part of it did not come back."""


@dataclass(slots=True)
class ChaosChain:
    """A chain and the tools to break it."""

    form: Form
    folder: Path
    disks: Mapping[str, Disk]
    """By the process whose store is on it; empty: they are on the disk that is there."""
    process: subprocess.Popen[bytes]
    edges: list[str] = field(default_factory=list)
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def token(self, user: str) -> str:
        """A token that lives as long as the test."""
        data = self.folder / "data"
        if self.form is not SINGLE:
            return user_token(data, user, _TOKEN_S)
        who, audience = Principal("default", user), "factorychain-api"
        return mint_user_token(DataDir(data).user_secret, who, ttl_s=_TOKEN_S, audience=audience)

    @property
    def terminals(self) -> list[Path]:
        """What the chain's processes have printed."""
        return [self.folder / "chain.log", *sorted((self.folder / "data").glob("*.log"))]

    async def connect(self) -> None:
        """Returns when everything serves.

        Raises:
            ChainFailed: it does not.
        """
        control = self.folder / "control.sock"
        try:
            async with asyncio.timeout(READY_S):
                while not control.exists():  # noqa: ASYNC110 - another process makes it
                    await asyncio.sleep(_POLL_S)
                self._reader, self._writer = await asyncio.open_unix_connection(str(control))
                self.edges = cast("list[str]", (await self.order(READY_S, do="where"))["edges"])
        except (TimeoutError, OSError, ChainFailed) as error:
            log = "\n".join(each.read_text(errors="replace")[-4000:] for each in self.terminals)
            raise ChainFailed(f"the chain did not start: {error!r}\n{log}") from None

    async def order(self, within_s: float = _ORDER_S, **what: str) -> dict[str, object]:
        """Have the host do something; its answer.

        Raises:
            ChainFailed: it does not answer.
        """
        assert self._reader is not None
        assert self._writer is not None
        async with self._turn:
            self._writer.write(json.dumps(what).encode() + b"\n")
            try:
                async with asyncio.timeout(within_s):
                    line = await self._reader.readline()
            except TimeoutError:
                raise ChainFailed(f"no answer in {within_s:.0f} s to {what}") from None
        if not line:
            raise ChainFailed(f"the chain's host has ended: {what}")
        answer: dict[str, object] = json.loads(line)
        return answer

    async def pid(self, process: str) -> int:
        """Of the process that has this name now.

        Raises:
            ProcessLookupError: there is none, or it takes no work yet.
        """
        pids = cast("dict[str, int]", (await self.order(do="where"))["pids"])
        if process not in pids:
            raise ProcessLookupError(process)
        return pids[process]

    async def signal(self, process: str, number: signal.Signals) -> int:
        """Send a signal; the pid that it has.

        Raises:
            ProcessLookupError: it is gone.
        """
        pid = await self.pid(process)
        os.kill(pid, number)
        return pid

    async def runs_at(self, process: str) -> int:
        """How many runs a process has; 0 also if it does not say."""
        name = "chain.log" if self.form is SINGLE else f"data/{process}.log"
        log = self.folder / name
        offset = log.stat().st_size
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            await self.signal(process, signal.SIGUSR1)
            async with asyncio.timeout(_SAID_WITHIN_S):
                while (runs := runs_said(log, offset, process)) is None:  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(_POLL_S)
                return runs
        return 0

    def disk_errors(self, process: str) -> int:
        """How often a NATS server has found no room."""
        log = self.folder / "data" / f"{process}.log"
        return log.read_text(errors="replace").count("no space left on device")

    async def back(self, process: str, old_pid: int | None) -> None:
        """Return when another process has taken its place; None: when there is one that takes work.

        Raises:
            ChainFailed: none did in time.
        """
        try:
            async with asyncio.timeout(BACK_S):
                while True:
                    with contextlib.suppress(ProcessLookupError):
                        if await self.pid(process) != old_pid:
                            return
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise ChainFailed(f"{process} was not started again in {BACK_S:.0f} s") from None

    async def stop(self) -> None:
        """Ends every process.

        Raises:
            ChainFailed: it did not end by itself.
        """
        if self._writer is not None:
            self._writer.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            await asyncio.to_thread(self.process.wait, STOPPED_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ChainFailed(f"the chain did not end in {STOPPED_S:.0f} s") from None

    def kill(self) -> None:
        """At once; the kernel ends what it has started."""
        self.process.kill()
        self.process.wait()


@contextlib.asynccontextmanager
async def chaos_chain(
    form: Form, folder: Path, env: Mapping[str, str], disk_bytes: int
) -> AsyncIterator[ChaosChain]:
    """A running chain; `disk_bytes` 0: its stores are on the disk that is there."""
    (folder / "data").mkdir(parents=True)
    with (
        _disks(folder / "data", form.stores, disk_bytes) as disks,
        (folder / "chain.log").open("wb") as log,
    ):
        process = subprocess.Popen(  # noqa: ASYNC220 - a fork and an exec, no waiting
            [sys.executable, "-m", "tests.chaos.host", form.name, str(folder)],
            env=environment(env), cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        chain = ChaosChain(form, folder, disks, process)
        try:
            await chain.connect()
            yield chain
        finally:
            await chain.stop()


@contextlib.contextmanager
def _disks(folder: Path, processes: Sequence[str], size_bytes: int) -> Iterator[Mapping[str, Disk]]:
    """One for each, in the folder of its store; none if they cannot be had."""
    disks: dict[str, Disk] = {}
    try:
        for each in processes if size_bytes else ():
            disk = Disk(folder / each, size_bytes)
            if not disk.mount():
                break
            disks[each] = disk
        yield disks if len(disks) == len(processes) else {}
    finally:
        for disk in disks.values():
            disk.unmount()
