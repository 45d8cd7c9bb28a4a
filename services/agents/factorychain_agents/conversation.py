"""A run's conversation, asked of the engine with the run's own token: what came before, what is kept.

Invariants: which thread and whose it is stands in the token alone; the token stays here. An attempt that is
told that a later one has taken over is stopped, whatever its agent makes of that.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from factorychain._core.credentials import TXN_HEADER
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.telemetry import span
from factorychain._instance.host import check_value
from factorychain.engine.v1.engine_pb2 import (
    GetHistoryRequest,
    LoadValueRequest,
    StoreValueRequest,
)
from factorychain.engine.v1.engine_pb2_grpc import EngineServiceStub
from factorychain.errors import AttemptSuperseded, ChainDegraded

_MOST: Final = 1000
_PATIENCE_S: Final = 30.0
"""An engine may be away for so long before what an agent asked of it fails."""
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 0.5

T = TypeVar("T")


class EngineConversation:
    """What one run may ask about its thread."""

    def __init__(
        self,
        engine: EngineServiceStub,
        ctx: UserExecutionContext,
        trace: str,
        superseded: Callable[[], None],
    ) -> None:
        """`superseded` is called when a later attempt of the run is found to have taken over."""
        self._engine = engine
        self._superseded = superseded
        self._trace = trace
        self._ctx = ctx

    def renewed(self, ctx: UserExecutionContext) -> None:
        """From now on this one's token is shown."""
        self._ctx = ctx

    async def history(self, limit: int) -> Sequence[bytes]:
        """The earlier runs, the oldest first, each serialized."""
        request = GetHistoryRequest(limit=max(1, min(limit, _MOST)))
        with span("read_history", parent=self._trace):
            found = await self._asked(
                lambda: self._engine.GetHistory(request, metadata=self._credential)
            )
        return [each.SerializeToString() for each in found.runs]

    async def load(self, name: str) -> tuple[bytes | None, int]:
        """As `RunHost.load`."""
        check_value(name)
        request = LoadValueRequest(name=name)
        with span("load_value", parent=self._trace):
            found = await self._asked(
                lambda: self._engine.LoadValue(request, metadata=self._credential)
            )
        return found.value if found.HasField("value") else None, found.revision

    async def store(self, name: str, value: bytes | None, revision: int) -> int:
        """As `RunHost.store`."""
        check_value(name, value)
        # The call is repeated with the same id, so that it finds itself after a lost answer.
        request = StoreValueRequest(
            name=name, value=value, revision=revision, request_id=secrets.token_hex(16)
        )
        with span("store_value", parent=self._trace):
            stored = await self._asked(
                lambda: self._engine.StoreValue(request, metadata=self._credential)
            )
        return stored.revision

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The engine's answer; a run goes on when one comes back that was away for a while.

        Raises:
            ChainDegraded: it was away for too long.
            AttemptSuperseded: A later attempt of the run has taken over.
        """
        loop = asyncio.get_running_loop()
        until_s, pause_s = loop.time() + _PATIENCE_S, _FIRST_PAUSE_S
        while True:
            try:
                return await ask()
            except AttemptSuperseded:
                self._superseded()  # before its agent fails of it, which is no ending of the run
                raise
            except ChainDegraded:
                if loop.time() + pause_s > until_s:
                    raise
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    @property
    def _credential(self) -> tuple[tuple[str, str], ...]:
        return ((TXN_HEADER, self._ctx.token),)
