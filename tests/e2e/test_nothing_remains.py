"""After many runs nothing of them is left but their records and their events."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.e2e.chain import running_chain
from tests.e2e.held import LAYERS, held
from tests.e2e.workers import RELEASED_WITHIN_S, admissions, assert_nothing_more, run_all
from tests.load import amount

pytestmark = pytest.mark.asyncio(loop_scope="session")

RUNS = amount(160, 1000)
# Every user in each of their threads: what is known of a thread is remembered, within bounds.
_WARM_UP = 160
_GROWTH_BYTES = 24 * 1024 * 1024


@pytest.mark.load
@pytest.mark.timeout(600)
async def test_nothing_of_many_runs_remains_after_five_seconds(tmp_path: Path) -> None:
    env = {
        "FACTORYCHAIN_ISOLATION": "task",
        "FACTORYCHAIN_FRAMES_PER_S": "1000",
        "FACTORYCHAIN_FRAMES_BURST": "1000",
        "TMPDIR": str(tmp_path / "tmp"),
    }
    (tmp_path / "tmp").mkdir()
    async with running_chain(tmp_path / "chain", env=env) as chain:
        await run_all(chain, _WARM_UP)
        await asyncio.sleep(RELEASED_WITHIN_S)
        before = {layer: await held(chain, layer) for layer in LAYERS}
        await run_all(chain, RUNS)
        await assert_nothing_more(chain, before, _GROWTH_BYTES)
        assert await admissions(chain) == []
    assert list((tmp_path / "tmp").iterdir()) == []
