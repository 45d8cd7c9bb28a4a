"""Where something of a run can end up besides its user's sockets: processes, folders, the store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import psutil

from factorychain._core.jetstream import JetStream
from factorychain._core.nats_connection import NatsConnection
from factorychain._core.nats_endpoint import NatsEndpoint
from factorychain._core.nats_permissions import ENGINE_BUCKETS
from tests.e2e.chain import Chain
from tests.e2e.held import held
from tests.waiting import until_true

_STREAMS = (*(f"KV_{bucket}" for bucket in ENGINE_BUCKETS), "EVENTS-0")
_LOOK_EVERY_S = 0.05


async def stored(chain: Chain) -> AsyncIterator[tuple[str, bytes]]:
    """Every message that NATS holds: its subject and its payload."""
    password = chain.data.path / "keys" / "nats-engine"
    connection = NatsConnection(NatsEndpoint(chain.state.nats, "engine", password), "engine")
    await connection.start()
    try:
        for name in _STREAMS:
            stream, at, more = JetStream(connection).stream(name), 0, True
            while more:
                messages, more = await stream.read_range(">", at + 1)
                for each in messages:
                    at = each.seq
                    yield each.subject, each.data
    finally:
        await connection.stop()


def children(chain: Chain) -> list[psutil.Process]:
    """The agents service's processes, and theirs."""
    return psutil.Process(chain.pid("agents")).children(recursive=True)


def states(processes: list[psutil.Process]) -> list[str]:
    """What each is doing; those that have ended meanwhile left out."""
    found: list[str] = []
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(each.status())
    return found


def run_folders(temporary: Path) -> list[Path]:
    """The folders of run processes."""
    return [each for each in temporary.glob("factorychain-runs-*/own/*") if each.is_dir()]


class Rest(NamedTuple):
    """What the agents service has when no run is there."""

    processes: int
    folders: int
    descriptors: int


async def at_rest(chain: Chain, temporary: Path, idle: int) -> Rest:
    """Waits until the zygote and so many idle processes are all that there is."""

    def resting() -> bool:
        return len(run_folders(temporary)) == idle and len(children(chain)) == idle + 1

    while True:
        await until_true(resting, 30)
        found = children(chain)
        own = await held(chain, "agents")
        if len(found) == idle + 1 and resting():  # and none was replaced while it was looked at
            break
    assert psutil.STATUS_ZOMBIE not in states(found)
    return Rest(len(found), len(run_folders(temporary)), own["descriptors"])


async def back_at(rest: Rest, chain: Chain, temporary: Path, idle: int) -> Rest:
    """What there is once it is as before, or at last: what ended a moment ago is let go in another."""
    found = await at_rest(chain, temporary, idle)
    for _ in range(40):
        if found == rest:
            break
        await asyncio.sleep(0.25)
        found = await at_rest(chain, temporary, idle)
    return found


class FolderWatch:
    """Reads, for as long as it is entered, what is in the folders of run processes."""

    def __init__(self, temporary: Path, search: Callable[[str], set[str]]) -> None:
        self.found: dict[Path, set[str]] = {}
        """What was found by folder, over the whole time."""
        self._temporary = temporary
        self._search = search

    async def __aenter__(self) -> FolderWatch:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def look(self) -> None:
        """Look once."""
        for top in self._temporary.glob("factorychain-runs-*/own/*"):
            found = self.found.setdefault(top, set())
            with contextlib.suppress(FileNotFoundError):  # it is gone meanwhile
                for path in (top, *top.rglob("*")):
                    if path.is_file():
                        found |= self._search(path.read_text(errors="replace"))

    async def _watch(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(_LOOK_EVERY_S)
