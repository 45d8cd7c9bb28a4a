"""Fixtures of the engine's integration tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.engine_harness import Chain, Engine, running_chain
from tests.nats_fixture import NatsServer


@pytest_asyncio.fixture
async def chain(tmp_path: Path, nats_server: NatsServer) -> AsyncIterator[Chain]:
    async with running_chain(tmp_path, nats_server) as running:
        yield running


@pytest_asyncio.fixture
async def engine(chain: Chain) -> Engine:
    return await chain.engine()
