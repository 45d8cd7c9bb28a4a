"""nats.conf in a real nats-server: the services can do their work with it, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from deploy import credentials
from factorychain._core.jetstream import JetStream
from factorychain._core.kv import ensure_bucket
from factorychain._core.log_reader import ensure_event_log
from factorychain._core.nats_connection import NatsConnection, NatsEndpoint
from factorychain._core.nats_permissions import ENGINE_BUCKETS
from factorychain._core.nats_server import server_binary
from factorychain._core.stored import NatsUnavailable, StorageRefused
from tests.nats_fixture import listening_url

NATS_CONF = Path(__file__).parents[3] / "deploy" / "k8s" / "base" / "nats.conf"


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
    connection = NatsConnection(endpoint(url, tmp_path, "engine"), "engine", timeout_s=10)
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
