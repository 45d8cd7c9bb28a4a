"""The agents service with its gateway, in front of the stand-in for the vendors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agents.conftest import Chain, serving
from tests.vendor import Vendor
from tests.vendor.fixture import vendor

__all__ = ["vendor"]

MODULE = "tests.integration.gateway.model_samples"
Start = Callable[..., AbstractAsyncContextManager[Chain]]


@pytest.fixture
def start(tmp_path: Path, vendor: Vendor) -> Start:
    """Starts the service; what is not said otherwise leads to the vendor."""

    @asynccontextmanager
    async def started(**changes: Any) -> AsyncIterator[Chain]:
        also = tmp_path / "upstreams.toml"
        also.write_text(
            f'[claude]\nprotocol = "anthropic"\nbase_url = "{vendor.url}"\napi_key = "{vendor.key}"\n'
            f'[small]\nbase_url = "{vendor.openai_url}"\napi_key = "{vendor.key}"\nmodels = ["m*"]\n'
        )
        fields = {
            "llm_base_url": vendor.openai_url,
            "llm_api_key": vendor.key,
            "llm_upstreams_file": also,
            "idle_processes_min": 1,
            "idle_processes_max": 1,
        }
        async with serving(tmp_path, MODULE, **(fields | changes)) as chain:
            yield chain

    return started


@pytest.fixture
async def chain(start: Start) -> AsyncIterator[Chain]:
    async with start() as started:
        yield started
