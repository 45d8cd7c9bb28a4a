"""An engine that has just stood still: what its callers gave up meanwhile does not begin."""

from __future__ import annotations

import asyncio
import time

from tests.engine_harness import Chain, Engine


async def test_a_start_that_was_given_up_meanwhile_does_not_begin(
    chain: Chain, engine: Engine
) -> None:
    engine.server.standstill._last_s = time.monotonic() - 30  # nothing looked at the clock
    given_up = asyncio.ensure_future(engine.start_run(thread="t1"))
    waits = asyncio.ensure_future(engine.start_run(thread="t2"))
    await asyncio.sleep(0.2)
    given_up.cancel()
    started = await waits
    assert started.thread == "t2"
    assert [*chain.agents.runs] == [started.run]
