"""LangChain's connections to vendors end with the test, or the loop, that made them.

LangChain keeps one client for each address for as long as the process lives. A service has one loop, so
that is as good there; here each test may have a loop of its own, and who gets a client whose connections
are of a loop that is closed fails with "Event loop is closed".
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest


@asynccontextmanager
async def own_langchain_clients() -> AsyncIterator[None]:
    """Models that are made while this is entered have clients of their own."""
    from langchain_openai.chat_models import _client_utils  # imports for seconds: where it is used

    made: list[Any] = []

    def make(*arguments: Any) -> Any:
        made.append(_client_utils._build_async_httpx_client(*arguments))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_client_utils, "_cached_async_httpx_client", make)
        yield
    for client in made:
        await client.aclose()


@pytest.fixture
async def langchain_clients() -> AsyncIterator[None]:
    """For one test, on its loop."""
    async with own_langchain_clients():
        yield
