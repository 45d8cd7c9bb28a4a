"""A start that comes while agents take no runs waits for them a moment, on the clock that services run on."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from factorychain.errors import ChainDegraded
from factorychain_engine.agents import replicas as module
from factorychain_engine.agents.balance import Load
from factorychain_engine.agents.replicas import LEAST_BETWEEN_S, Replicas

STARTS = 60


async def _resolve(_target: str) -> tuple[str, ...]:
    return ("one",)


class Starting(Replicas):
    """One replica that takes no runs when it is asked for the first time, and does a few looks later."""

    def __init__(self, takes_at_look: int = 1) -> None:
        super().__init__("agents", lambda _: pytest.fail("nobody connects"), _resolve)
        self.looks_left = takes_at_look
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
        self.looks_left -= 1
        self._heard(accepting=self.looks_left <= 0)


def test_whenever_they_come_they_are_not_refused_for_a_timer_that_rings_early() -> None:
    async def start(late_s: float) -> None:
        replicas = Starting()
        await asyncio.sleep(late_s)
        await replicas.ready()
        await replicas.stop()

    async def starts() -> None:
        await asyncio.gather(*(start(LEAST_BETWEEN_S * each / STARTS) for each in range(STARTS)))

    uvloop.run(starts())


@pytest.mark.parametrize("looks", [1, 4])
async def test_it_waits_until_they_take_runs(monkeypatch: pytest.MonkeyPatch, looks: int) -> None:
    monkeypatch.setattr(module, "LEAST_BETWEEN_S", 0.01)
    replicas = Starting(looks)
    await replicas.ready()
    assert replicas.looks_left == 0
    await replicas.stop()


async def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_BETWEEN_S", 0.01)
    monkeypatch.setattr(module, "READY_WITHIN_S", 0.1)
    replicas = Starting(1_000_000)
    with pytest.raises(ChainDegraded):
        await replicas.ready()
    assert replicas.looks_left < 1_000_000 - 1
    await replicas.stop()
