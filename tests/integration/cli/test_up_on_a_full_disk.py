"""A chain whose disk was full serves again by itself as soon as there is room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from factorychain.local.datadir import DataDir
from tests.chaos.disk import Disk
from tests.command import Command, Up, running_up
from tests.small_disk import small_disk
from tests.waiting import until, until_not

pytestmark = pytest.mark.asyncio(loop_scope="session")

DISK_BYTES = 64 * 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(DataDir(tmp_path / "data").nats_store, DISK_BYTES) as disk:
        yield disk


async def test_nats_is_started_again_when_there_is_room(
    command: Command, tmp_path: Path, disk: Disk
) -> None:
    async with running_up(command, tmp_path, "--agents", "deskagents") as chain:
        assert await completes(chain)
        (before,) = chain.state.pids["nats"]
        disk.fill()
        await chain.shows("nats has no room on its disk")
        await until_not(lambda: completes(chain), 90)
        assert chain.state.pids["nats"] == [before]
        disk.empty()
        await chain.shows("nats had no room on its disk and has some again: it is restarted")
        await until(lambda: completes(chain))
        assert chain.state.pids["nats"] != [before]


async def completes(chain: Up) -> bool:
    """Whether a run can be started, and ends well."""
    ask = ("run", "--user", "ada", "--data", str(chain.data), "--agent", "says", "x")
    return (await chain.command(*ask)).status == 0
