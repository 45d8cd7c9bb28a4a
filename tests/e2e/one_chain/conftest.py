"""The chain that the tests of this folder share; whatever breaks something starts its own elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from factorychain.local.trace_sink import TraceSink
from tests.e2e.chain import Chain, running_chain


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def traces() -> AsyncIterator[TraceSink]:
    """An OTLP collector that the shared chain exports to."""
    sink = TraceSink()
    await sink.start()
    yield sink
    await sink.stop()


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def chain(
    traces: TraceSink, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Chain]:
    """The shared chain."""
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": traces.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "FACTORYCHAIN_FRAMES_PER_S": "1000",
        "FACTORYCHAIN_FRAMES_BURST": "1000",
        "FACTORYCHAIN_AUTH_TIMEOUT_S": "4",
    }
    async with running_chain(tmp_path_factory.mktemp("chain"), env=env) as running:
        yield running
