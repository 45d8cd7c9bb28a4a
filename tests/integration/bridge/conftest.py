"""Replicas of the bridge on one real NATS server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.bridge.replica import Replica
from tests.nats_fixture import NatsServer


@pytest.fixture
async def replica(nats_server: NatsServer) -> AsyncIterator[Replica]:
    async with Replica.running(nats_server) as running:
        yield running


@pytest.fixture
async def other_replica(nats_server: NatsServer, replica: Replica) -> AsyncIterator[Replica]:
    """Started after the first, which has made the log."""
    async with Replica.running(nats_server) as running:
        yield running
