"""nats.conf in a real nats-server: the services can do their work with it, and nothing else; and the probes
of nats.yaml find out when it stores nothing any more.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from deploy import credentials
from factorychain._core.jetstream import JetStream
from factorychain._core.kv import ensure_bucket
from factorychain._core.log_reader import ensure_event_log
from factorychain._core.nats_connection import NatsConnection, NatsEndpoint
from factorychain._core.nats_permissions import ENGINE_BUCKETS
from factorychain._core.nats_server import server_binary
from factorychain._core.stored import NatsUnavailable, StorageRefused
from tests.chaos.disk import Disk
from tests.nats_fixture import listening_url
from tests.small_disk import small_disk
from tests.waiting import until_not

BASE = Path(__file__).parents[3] / "deploy" / "k8s" / "base"
NATS_CONF = BASE / "nats.conf"
DISK_BYTES = 16 * 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """What the server stores on, if it is asked for before the server."""
    with small_disk(tmp_path / "store", DISK_BYTES) as disk:
        yield disk


@pytest_asyncio.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """A server with the folders of the image, under `tmp_path`."""
    made = tmp_path / "run" / "secrets" / "factorychain"
    credentials.make(made)
    config = tmp_path / "etc" / "nats" / "nats.conf"
    config.parent.mkdir(parents=True)
    # The one thing that cannot be overridden by an option.
    config.write_text(NATS_CONF.read_text().replace("/var/lib/nats", str(tmp_path / "store")))
    overrides = ["--addr", "127.0.0.1", "--port", "-1", "--http_port", "-1", "--ports_file_dir"]
    with (tmp_path / "nats.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(server_binary()), "--config", str(config), *overrides, str(tmp_path),
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield await listening_url(tmp_path, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest_asyncio.fixture
async def engine(url: str, tmp_path: Path) -> AsyncIterator[JetStream]:
    connection = NatsConnection(endpoint(url, tmp_path, "engine"), "engine", timeout_s=2)
    await connection.start()
    yield JetStream(connection)
    await connection.stop()


@pytest_asyncio.fixture
async def bridge(url: str, tmp_path: Path) -> AsyncIterator[JetStream]:
    connection = NatsConnection(endpoint(url, tmp_path, "bridge"), "bridge", timeout_s=10)
    await connection.start()
    yield JetStream(connection)
    await connection.stop()


def endpoint(url: str, folder: Path, user: str) -> NatsEndpoint:
    secrets = folder / "run" / "secrets" / "factorychain"
    return NatsEndpoint(url, user, secrets / f"nats-{user}-password")


async def test_the_engine_makes_its_buckets_and_the_bridge_the_log(
    engine: JetStream, bridge: JetStream
) -> None:
    for name in ENGINE_BUCKETS:
        bucket = await ensure_bucket(engine, name)
        await bucket.create("a.b", b"{}")
    await ensure_event_log(bridge, 1, max_age_s=60)


async def test_the_bridge_cannot_make_a_record(engine: JetStream, bridge: JetStream) -> None:
    await ensure_bucket(engine, "users")
    with pytest.raises((NatsUnavailable, StorageRefused)):
        await ensure_bucket(bridge, "users")


@pytest.mark.parametrize("before", [0, 1])
async def test_the_liveness_probe_fails_when_it_has_found_no_room_on_its_disk(
    disk: Disk, engine: JetStream, tmp_path: Path, before: int
) -> None:
    """It says so, or hangs if it had stored nothing `before`."""
    bucket = await ensure_bucket(engine, "users")
    for _ in range(before):
        await bucket.put("a.b", b"{}")
    assert await alive(tmp_path)
    disk.fill()

    async def stores() -> bool:
        try:
            await bucket.put("a.b", bytes(4096))
        except NatsUnavailable:
            return False
        return True

    await until_not(stores)
    disk.empty()
    assert not await alive(tmp_path, within_s=1)  # one that hangs spins


async def alive(folder: Path, within_s: float = 60) -> bool:
    """By the liveness probe of nats.yaml, of the server that says in a folder where it listens."""
    (ports,) = folder.glob("*.ports")
    monitor = json.loads(ports.read_text())["monitoring"][0]
    (workload,) = (
        each
        for each in yaml.safe_load_all((BASE / "nats.yaml").read_text())
        if each["kind"] == "StatefulSet"
    )
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    probe = container["livenessProbe"]
    return await asyncio.to_thread(
        _answers, monitor + probe["httpGet"]["path"], min(within_s, probe["timeoutSeconds"])
    )


def _answers(url: str, within_s: float) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=within_s):
            return True
    except OSError:  # of which an HTTP error is one
        return False
