"""The chain that the tests of agents made with frameworks share, and the vendor of models that it asks.

It is started in the folder of a new project and has every example as well: a chain that imports every
framework there is takes long to start.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.chain import ROOT, Chain, environment, running_chain
from tests.vendor import Vendor

_AGENTS = ("tests.e2e.graphs:nested", "tests.e2e.graphs:loop", "tests.e2e.pydantic_agents")
_EXAMPLES = {
    "plain": "reading",
    "approval": "refunds",
    "langgraph": "travel:graph",
    "pydantic_ai": "trips:planner",
    "mcp": "lengths:Lengths",
}
_LIMITS = """
[plans.small]
user_tokens = 100
[tenants.club]
tenant_tokens = 100
"""
_FOLDERS = (ROOT, *(ROOT / "examples" / each for each in _EXAMPLES))


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def one_vendor() -> AsyncIterator[Vendor]:
    async with Vendor() as started:
        yield started


@pytest.fixture(scope="package")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a new project."""
    desk = tmp_path_factory.mktemp("desk")
    made = subprocess.run(
        [sys.executable, "-m", "factorychain.cli", "new", "my-agent"],
        cwd=desk, env=environment(), capture_output=True, check=True,
    )  # fmt: skip
    assert b"up --agents my_agent" in made.stdout
    return desk / "my-agent"


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def served(
    one_vendor: Vendor, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Chain]:
    """A chain that has the vendor's key, agents that have none, and users with little to spend."""
    folder = tmp_path_factory.mktemp("vendor")
    limits = folder / "limits.toml"
    limits.write_text(_LIMITS)
    env = {
        "PYTHONPATH": os.pathsep.join(map(str, _FOLDERS)),
        "FACTORYCHAIN_AGENT_PROCESSES": "true",
        "FACTORYCHAIN_LLM_BASE_URL": one_vendor.openai_url,
        "FACTORYCHAIN_LLM_API_KEY": one_vendor.key,
        "FACTORYCHAIN_LLM_RUN_MAX_TOKENS": "5000",
        "FACTORYCHAIN_LIMITS_FILE": str(limits),
    }
    named = ("my_agent", *_AGENTS, *_EXAMPLES.values())
    agents = [each for agent in named for each in ("--agents", agent)]
    async with running_chain(folder, agents, env, cwd=project) as running:
        yield running


@pytest.fixture
def vendor(one_vendor: Vendor) -> Vendor:
    """With nothing to say yet."""
    one_vendor.reset()
    return one_vendor
