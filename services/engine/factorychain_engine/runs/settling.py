"""Ends a run that its agents cannot, or would not, end.

Invariant: the bridge appends an ending only if the run has none yet, so settling twice, or while the agent
ends by itself, leaves exactly one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from factorychain._core.crash_points import crash_point
from factorychain._core.ids import Principal
from factorychain._core.logging import get_logger
from factorychain._core.telemetry import counter, span
from factorychain.errors import FactoryChainError
from factorychain.types.v1.run_pb2 import Run
from factorychain_engine.admission.record import ActiveRun
from factorychain_engine.records.endings import ending_of
from factorychain_engine.records.outcomes import Outcomes
from factorychain_engine.retry import retries
from factorychain_engine.runs.speaking import Speaker, cause_of

log = get_logger(__name__)
_settled = counter("factorychain.engine.settled", "Runs that the engine ended, by reason")


class Settler:
    """Settles runs."""

    def __init__(
        self,
        speaker: Speaker,
        outcomes: Outcomes,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._speaker = speaker
        self._outcomes = outcomes
        self._clock = clock

    async def settle(
        self, principal: Principal, entry: ActiveRun, reason: str, message: str = ""
    ) -> Run:
        """End the run, however long the emitter is away; returns it as it has really ended.

        `reason` and `message` are those of `ending_of`.
        """
        with span("settle_run", parent=entry.trace, attributes={"end.reason": str(reason)}):
            async for _ in retries():
                try:
                    ended = await self._outcomes.of_place(principal, entry)
                    if ended is None:
                        await self._say(principal, entry, reason, message)
                        ended = await self._outcomes.of_place(principal, entry)
                except (FactoryChainError, TimeoutError) as error:
                    log.warning("a run is not settled yet", run=entry.run, cause=cause_of(error))
                    continue
                if ended is not None:
                    _settled.add(1, {"reason": str(reason)})
                    return ended
        raise AssertionError("unreachable: retries() never ends")

    async def _say(self, principal: Principal, entry: ActiveRun, reason: str, message: str) -> None:
        event = ending_of(reason, self._clock(), entry.trace, message)
        crash_point("engine.settle.saying")
        if await self._speaker.say(principal, entry, event, ends=True):
            crash_point("engine.settle.said")
