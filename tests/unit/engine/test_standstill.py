"""After a standstill nothing is begun before callers that have given up were heard."""

from __future__ import annotations

import asyncio

import pytest

from factorychain_engine import standstill
from factorychain_engine.standstill import CATCH_UP_S, Standstill


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def waits(found: Standstill) -> bool:
    """Whether a call that comes now has to wait; it is given up."""
    call = asyncio.ensure_future(found.caught_up())
    await asyncio.sleep(0)
    waited = not call.done()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    return waited


async def test_a_call_of_before_a_standstill_waits_until_its_caller_could_be_heard() -> None:
    clock = Clock()
    found = Standstill(clock)
    clock.now_s += 2.0  # a busy machine
    assert not await waits(found)
    clock.now_s += 8.0  # nothing looked meanwhile, the first call finds out
    assert await waits(found)
    clock.now_s += CATCH_UP_S / 2
    assert await waits(found)
    clock.now_s += CATCH_UP_S
    assert not await waits(found)


async def test_a_look_in_between_keeps_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standstill, "_LOOK_EVERY_S", 0.01)
    clock = Clock()
    found = Standstill(clock)
    await found.start()
    try:
        clock.now_s += 20.0
        await asyncio.sleep(0.1)  # several looks, by a clock that stands still again
        assert await waits(found)
        assert found.healthy
        clock.now_s += CATCH_UP_S
        assert not await waits(found)
    finally:
        await found.stop()


async def test_who_waits_goes_on() -> None:
    clock = Clock()
    found = Standstill(clock)
    clock.now_s += 20.0
    await asyncio.wait_for(found.caught_up(), CATCH_UP_S * 10)
