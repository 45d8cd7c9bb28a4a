"""Ends a run that its agents cannot, or would not, end.

Invariant: the ending goes the way of every event (emitter, bridge, log) with a token of scope
`lifecycle`; the bridge appends it only if the run has no ending yet, so settling twice, or while
the agent ends by itself, leaves exactly one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from factorychain._core.crash_points import crash_point
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain._core.logging import get_logger
from factorychain._core.telemetry import counter, span
from factorychain.errors import ChainDegraded, FactoryChainError, RunEnded
from factorychain.types.v1.run_pb2 import Run
from factorychain_engine.admission import ActiveRun
from factorychain_engine.endings import ending_of
from factorychain_engine.outcomes import Outcomes
from factorychain_engine.retry import retries
from factorychain_engine.run_tokens import RunTokens

log = get_logger(__name__)
_settled = counter("factorychain.engine.settled", "Runs that the engine ended, by reason")

ATTEMPT_S: Final = 10.0


class EmitterRun(Protocol):
    """One run on the link to the emitter (`LinkRun`)."""

    async def send(self, event: bytes, run_seq: int) -> None: ...

    async def flushed(self) -> None: ...

    async def wait_ended(self) -> None: ...


class EmitterLink(Protocol):
    """The link to the emitter (`LinkClient`)."""

    def open(
        self, ctx: UserExecutionContext, *, trace: str
    ) -> AbstractAsyncContextManager[EmitterRun]: ...


class Settler:
    """Settles runs."""

    def __init__(
        self,
        link: EmitterLink,
        tokens: RunTokens,
        outcomes: Outcomes,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._link = link
        self._tokens = tokens
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
                    log.warning("a run is not settled yet", run=entry.run, cause=_cause(error))
                    continue
                if ended is not None:
                    _settled.add(1, {"reason": str(reason)})
                    return ended
        raise AssertionError("unreachable: retries() never ends")

    async def _say(self, principal: Principal, entry: ActiveRun, reason: str, message: str) -> None:
        context = self._tokens.lifecycle(principal, entry)
        event = ending_of(reason, self._clock(), entry.trace, message)
        crash_point("engine.settle.saying")
        async with asyncio.timeout(ATTEMPT_S):
            async with self._link.open(context, trace=entry.trace) as run:
                try:
                    await run.send(event.SerializeToString(), 0)
                    await run.wait_ended()
                    crash_point("engine.settle.said")
                except RunEnded:
                    return


def _cause(error: FactoryChainError | TimeoutError) -> str:
    if isinstance(error, ChainDegraded):
        return error.layer
    return error.reason if isinstance(error, FactoryChainError) else "no answer in time"
