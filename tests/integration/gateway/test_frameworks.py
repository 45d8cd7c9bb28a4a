"""Frameworks reach models as the vendors' own clients do, and what they make of troubles is understood."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.gateway.conftest import Place, started
from tests.integration.gateway.reading import failure, output, usage
from tests.vendor import Fault, Turn, VendorUsage
from tests.vendor.langchain_clients import own_langchain_clients

pytestmark = pytest.mark.asyncio(loop_scope="session")

AGENTS = ("chain", "pydantic", "typed")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def frameworks(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("frameworks")
    module = "tests.integration.gateway.framework_samples"
    async with own_langchain_clients(), started(folder, module, isolation="task") as place:
        yield place


@pytest.mark.parametrize("agent", AGENTS)
async def test_they_find_the_gateway_and_say_what_happened(frameworks: Place, agent: str) -> None:
    chain, vendor = frameworks.chain, frameworks.vendor
    vendor.reset()
    vendor.script(
        Turn(text=["Hel", "lo"], usage=VendorUsage(11, 7, 3, 2)),
        Turn(fault=Fault(status=429, retry_after="77")),
        Turn(text=["a", "b", "c", "d"], gap_s=0.01, fault=Fault(cut_after=4)),
    )
    answered = await chain.run(chain.token(agent), "hi")
    assert output(answered) == "Hello"
    assert usage(answered) == (11, 7, 3, 2, 1)
    limited = failure(await chain.run(chain.token(agent), "hi"))
    assert (limited.reason, limited.retry_after_s) == ("MODEL_RATE_LIMITED", 77)
    broken = failure(await chain.run(chain.token(agent), "hi"))
    assert (broken.reason, broken.retryable) == ("MODEL_UNAVAILABLE", True)
    assert len(vendor.requests) == 3
    assert all(each.key == vendor.key for each in vendor.requests)
