"""`from tests.vendor.fixture import vendor`: one for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.vendor.server import Vendor


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    async with Vendor() as started:
        yield started
