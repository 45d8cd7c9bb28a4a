"""A start that comes while agents are just starting waits for them, on the clock that services run on."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from factorychain_engine.agents.balance import Load
from factorychain_engine.agents.replicas import LEAST_BETWEEN_S, Replicas

STARTS = 60


async def _resolve(_target: str) -> tuple[str, ...]:
    return ("one",)


class Starting(Replicas):
    """One replica that takes no runs when it is asked for the first time, and does from then on."""

    def __init__(self) -> None:
        super().__init__("agents", lambda _: pytest.fail("nobody connects"), _resolve)
        self.balance.resolved(["one"])
        self._heard(accepting=False)

    def _heard(self, *, accepting: bool) -> None:
        self.balance.heard("one", Load("boot", 0, 10, accepting))
        self._looked_at_s = asyncio.get_running_loop().time()

    async def connected(self) -> list[object]:  # type: ignore[override]
        return []

    def _connected(self, address: str) -> bool:
        return True

    async def _look(self) -> None:
        self._heard(accepting=True)


def test_whenever_they_come_they_are_not_refused_for_a_timer_that_rings_early() -> None:
    async def start(late_s: float) -> None:
        replicas = Starting()
        await asyncio.sleep(late_s)
        await replicas.ready()
        await replicas.stop()

    async def starts() -> None:
        await asyncio.gather(*(start(LEAST_BETWEEN_S * each / STARTS) for each in range(STARTS)))

    uvloop.run(starts())
