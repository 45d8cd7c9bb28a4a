"""A full disk below NATS is found, reported, and survived; on a small disk of its own (a tmpfs)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from factorychain_bridge.integration import IntegrationState
from tests.chaos.disk import Disk
from tests.integration.bridge.replica import Collected, Replica
from tests.nats_fixture import running_nats_server
from tests.small_disk import small_disk
from tests.unit.bridge.samples import ANA, completed, context, started, thinking
from tests.waiting import until_true

DISK_BYTES = 8 * 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "js", DISK_BYTES) as disk:
        yield disk


async def test_a_full_disk_degrades_the_bridge_and_nothing_is_lost(
    tmp_path: Path, disk: Disk
) -> None:
    async with (
        running_nats_server(tmp_path) as nats,
        Replica.running(nats, timeout_s=0.3) as replica,
    ):
        ana = Collected()
        held = await replica.hub.connect(ANA)
        await replica.subscribe(ana)
        sender = await replica.open(context())
        sender.send((1, started()))
        await sender.durable(1)
        disk.fill()
        texts = [f"{n} {'x' * 1000}" for n in range(2, 12)]  # more than the rest of a page
        for n, text in enumerate(texts, 2):
            sender.send((n, thinking(text)))
        await until_true(lambda: replica.integration.state is not IntegrationState.ACTIVE, 20)
        assert "no room on its disk" in replica.integration.cause
        await until_true(lambda: not replica.recovery.healthy, 20)
        disk.empty()
        await nats.kill()
        await nats.start()
        sender.send((12, completed()))
        await sender.ended()
        await ana.until(lambda seen: seen.seq == 12)
        assert ana.texts == ["", *texts, ""]
        assert replica.integration.active
        held.close()
