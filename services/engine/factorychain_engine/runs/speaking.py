"""Says what the engine has to say of a run itself: lifecycle events, each on a stream of its own.

Invariant: they go the way of every event (emitter, bridge, log) with a token of scope `lifecycle`; the
bridge appends none to a run that has ended. So what is said again, because nobody knows whether it was
said, is in the log once if it is an ending, and does no harm if it is a position.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain.errors import ChainDegraded, FactoryChainError, RunEnded
from factorychain.types.v1.event_pb2 import Event
from factorychain_engine.admission.record import ActiveRun
from factorychain_engine.tokens.run_tokens import RunTokens

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


class Speaker:
    """Says lifecycle events."""

    def __init__(self, link: EmitterLink, tokens: RunTokens) -> None:
        self._link = link
        self._tokens = tokens

    async def say(
        self, principal: Principal, entry: ActiveRun, event: Event, *, ends: bool = False
    ) -> bool:
        """Returns when the event is in the log; False if the run had ended before. `ends`: it is the run's
        ending.

        Raises:
            FactoryChainError, TimeoutError: nobody knows whether it was said.
        """
        context = self._tokens.lifecycle(principal, entry)
        async with asyncio.timeout(ATTEMPT_S):
            async with self._link.open(context, trace=entry.trace) as run:
                try:
                    await run.send(event.SerializeToString(), 0)
                    await (run.wait_ended() if ends else run.flushed())
                except RunEnded:
                    return False
        return True


def cause_of(error: FactoryChainError | TimeoutError) -> str:
    """Why something was not said, for the log."""
    if isinstance(error, ChainDegraded):
        return error.layer
    return error.reason if isinstance(error, FactoryChainError) else "no answer in time"
