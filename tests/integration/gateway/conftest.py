"""The agents service with its gateway, in front of the stand-in for the vendors.

Starting it with processes costs seconds, so what needs them shares one; so does what can be shown with
runs as tasks, to which the gateway is the same. What depends on settings has the service for itself.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.agents.conftest import Chain, serving
from tests.vendor import Vendor

MODULE = "tests.integration.gateway.model_samples"
Start = Callable[..., AbstractAsyncContextManager[Chain]]


@dataclass(frozen=True, slots=True)
class Place:
    """The shared one."""

    chain: Chain
    vendor: Vendor


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def in_processes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with started(tmp_path_factory.mktemp("gateway"), isolation="process") as place:
        yield place


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def in_tasks(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with started(
        tmp_path_factory.mktemp("gateway"),
        isolation="task",
        llm_silence_max_s=1.0,
        llm_request_max_bytes=20_000,
        llm_response_max_bytes=30_000,
        llm_run_max_concurrent=2,
    ) as place:
        yield place


@pytest_asyncio.fixture(loop_scope="session")
async def vendor() -> AsyncIterator[Vendor]:
    async with Vendor() as started:
        yield started


@pytest.fixture
def place(in_processes: Place) -> Iterator[Place]:
    """The shared one with processes, as it was at first. Its tests are on the session's loop."""
    yield from _reset(in_processes)


@pytest.fixture
def here(in_tasks: Place) -> Iterator[Place]:
    """The shared one with tasks, and bounds that are soon reached."""
    yield from _reset(in_tasks)


def _reset(place: Place) -> Iterator[Place]:
    place.vendor.reset()
    yield place
    gateway = place.chain.agents.gateway
    assert gateway is not None
    assert len(gateway._accounts) == 0, "a key has outlived its run"


@asynccontextmanager
async def started(folder: Path, module: str = MODULE, **changes: Any) -> AsyncIterator[Place]:
    """A service, and the vendor that it leads to."""
    sys.modules.pop(module, None)
    async with (
        Vendor() as vendor,
        serving(folder, module, **(_fields(folder, vendor) | changes)) as chain,
        _closing(module),
    ):
        yield Place(chain, vendor)


@asynccontextmanager
async def _closing(module: str) -> AsyncIterator[None]:
    """Close the clients that it has made when it was imported here."""
    yield
    for name in ("EARLY", "EARLY_ANTHROPIC"):
        client = getattr(sys.modules[module], name, None)
        if client is not None:
            await client.close()


@pytest.fixture
def start(tmp_path: Path, vendor: Vendor) -> Start:
    """Starts a service of the test's own; what is not said otherwise leads to the vendor."""

    @asynccontextmanager
    async def starting(module: str = MODULE, **changes: Any) -> AsyncIterator[Chain]:
        # Clients that it makes when it is imported are made for this gateway.
        sys.modules.pop(module, None)
        fields = _fields(tmp_path, vendor) | {"isolation": "task"} | changes
        async with serving(tmp_path, module, **fields) as chain, _closing(module):
            yield chain

    return starting


def _fields(folder: Path, vendor: Vendor) -> dict[str, Any]:
    upstreams, credentials = folder / "upstreams.toml", folder / "credentials.toml"
    upstreams.write_text(
        f'[claude]\nprotocol = "anthropic"\nbase_url = "{vendor.url}"\napi_key = "{vendor.key}"\n'
        f'[small]\nbase_url = "{vendor.openai_url}"\napi_key = "{vendor.key}"\nmodels = ["m*"]\n'
    )
    credentials.write_text(
        f'[tracker]\nbase_url = "{vendor.url}/api"\nsecret = "secret-of-all"\n'
        'tenants.acme = "secret-of-acme"\nusers.acme.ada = "secret-of-ada"\n'
        f'[private]\nbase_url = "{vendor.url}/private"\nheaders = {{ X-Token = "t {{secret}}" }}\n'
        'users.acme.ada = "private-of-ada"\n'
    )
    return {
        "llm_base_url": vendor.openai_url,
        "llm_api_key": vendor.key,
        "llm_upstreams_file": upstreams,
        "credentials_file": credentials,
        "idle_processes_min": 1,
        "idle_processes_max": 2,
    }
