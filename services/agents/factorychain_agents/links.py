"""The link to the emitter, as runs use it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.link import LinkClient, Refusal
from factorychain.emitter.v1.emitter_pb2 import EmitRequest
from factorychain_agents.host import RunLink
from factorychain_agents.runs import Rejections

# A stream that just broke is back within this time unless the emitter is really away.
_SOON_S = 1.0


class EmitterLinks:
    """`Links` on the real link."""

    def __init__(self, link: LinkClient[EmitRequest]) -> None:
        self._link = link

    async def ready(self) -> bool:
        if self._link.connected:
            return True
        try:
            async with asyncio.timeout(_SOON_S):
                await self._link.wait_connected()
        except TimeoutError:
            return False
        return True

    async def open(
        self,
        ctx: UserExecutionContext,
        trace: str,
        rejected: Rejections,
        refused: Callable[[], None],
    ) -> RunLink:
        return self._link.open(ctx, trace=trace, observer=_Observer(rejected, refused))


class _Observer:
    """Passes on what a run has to hear; what it waits for it hears from its `LinkRun`."""

    def __init__(self, rejected: Rejections, refused: Callable[[], None]) -> None:
        self._rejected = rejected
        self._refused = refused

    def opened(self, durable_run_seq: int) -> None:
        """Nothing to do."""

    def acknowledged(self, durable_run_seq: int, ended: bool) -> None:
        """Nothing to do."""

    def rejected(self, run_seq: int, reason: str, message: str) -> None:
        self._rejected(run_seq, reason, message)

    def refused(self, refusal: Refusal) -> None:
        del refusal  # the run's next call raises it
        self._refused()

    def paused(self, refusal: Refusal) -> None:
        """The link tries again."""
