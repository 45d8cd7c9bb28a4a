"""Models of a vendor that is a server of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.adapters.pydantic_ai.models import Models
from tests.vendor import Vendor


@pytest.fixture
async def model(vendor: Vendor) -> AsyncIterator[Models]:
    made = Models(vendor)
    yield made
    await made.close()
