"""The chain that the tests of agents made with frameworks share, and the vendor of models that it asks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.e2e.chain import Chain, running_chain
from tests.vendor import Vendor

_AGENTS = ("tests.e2e.graphs:nested", "tests.e2e.graphs:loop", "tests.e2e.pydantic_agents")


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def one_vendor() -> AsyncIterator[Vendor]:
    async with Vendor() as started:
        yield started


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def served(
    one_vendor: Vendor, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Chain]:
    """A chain that has the vendor's key, and agents that have none."""
    env = {
        "FACTORYCHAIN_LLM_BASE_URL": one_vendor.openai_url,
        "FACTORYCHAIN_LLM_API_KEY": one_vendor.key,
        "FACTORYCHAIN_LLM_RUN_MAX_TOKENS": "5000",
    }
    agents = [each for agent in _AGENTS for each in ("--agents", agent)]
    async with running_chain(tmp_path_factory.mktemp("vendor"), agents, env) as running:
        yield running


@pytest.fixture
def vendor(one_vendor: Vendor) -> Vendor:
    """With nothing to say yet."""
    one_vendor.reset()
    return one_vendor
