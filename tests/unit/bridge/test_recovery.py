"""When the bridge's storage is probed: at a start once, and again when something asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from factorychain._core.stored import NatsUnavailable
from factorychain_bridge.integration import Integration
from factorychain_bridge.log_watch import LogWatch
from factorychain_bridge.recovery import Recovery


class _NothingLost:
    async def look(self) -> bool:
        return False


async def _nothing() -> None:
    return None


class _Bridge:
    """A recovery without connections, and how often it has probed."""

    def __init__(self, answer: Callable[[Integration], None] = lambda _: None) -> None:
        """`answer` is what a probe does."""
        self.probes = 0
        self.integration = Integration(attempts=3, delay_s=0.001, now_s=lambda: 0.0)
        self._answer = answer
        watch = cast("LogWatch", _NothingLost())
        self.recovery = Recovery(self.integration, (), self._probe, _nothing, watch, look_s=3600)

    async def _probe(self) -> None:
        self.probes += 1
        self._answer(self.integration)

    async def idle(self) -> None:
        """Until whatever was to be done at once is done."""
        for _ in range(20):
            await asyncio.sleep(0)


@asynccontextmanager
async def _started(bridge: _Bridge) -> AsyncIterator[_Bridge]:
    await bridge.recovery.start()
    try:
        await bridge.idle()
        yield bridge
    finally:
        await bridge.recovery.stop()


async def test_a_start_probes_once() -> None:
    async with _started(_Bridge()) as bridge:
        assert (bridge.probes, bridge.integration.active) == (1, True)


async def test_who_suspects_an_outage_has_it_probed_at_once() -> None:
    async with _started(_Bridge()) as bridge:
        bridge.recovery.suspect()
        await bridge.idle()
        assert bridge.probes == 2


async def test_what_is_lost_while_a_start_probes_is_probed_again() -> None:
    def loses(integration: Integration) -> None:
        if bridge.probes == 1:
            integration.lost("NATS is disconnected")

    bridge = _Bridge(loses)
    async with _started(bridge):
        assert (bridge.probes, bridge.integration.active) == (2, True)


async def test_a_start_without_storage_goes_on_trying() -> None:
    def away(_: Integration) -> None:
        if bridge.probes < 3:
            raise NatsUnavailable("no answer", sent=True)

    bridge = _Bridge(away)
    async with _started(bridge):
        async with asyncio.timeout(10):
            await bridge.recovery.active()
        assert bridge.probes == 3
