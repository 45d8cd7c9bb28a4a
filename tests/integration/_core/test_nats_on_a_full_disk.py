"""A NATS server that is started on a full disk: how much it may take is for the disk to say, at any time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from factorychain._core.jetstream import JetStream
from factorychain._core.kv import ensure_bucket
from factorychain._core.stored import NatsUnavailable
from tests.chaos.disk import Disk
from tests.nats_fixture import running_nats_server
from tests.small_disk import small_disk
from tests.waiting import until

DISK_BYTES = 8 * 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "js", DISK_BYTES) as disk:
        yield disk


async def stores(js: JetStream) -> bool:
    try:
        await (await ensure_bucket(js, "values")).put("a.b", b"{}")
    except NatsUnavailable:
        return False
    return True


async def test_it_stores_as_soon_as_there_is_room(tmp_path: Path, disk: Disk) -> None:
    async with running_nats_server(tmp_path) as server:
        async with server.connected("engine") as js:
            assert await stores(js)
        await server.stop()
        disk.fill()
        await server.start()
        disk.empty()
        async with server.connected("engine") as js:
            await until(lambda: stores(js))
