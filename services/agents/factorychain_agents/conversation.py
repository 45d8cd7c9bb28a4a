"""A run's conversation, asked of the engine with the run's own token: what came before, what is kept.

Invariant: which thread and whose it is stands in the token alone; the token stays here.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

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

_MOST: Final = 1000


class EngineConversation:
    """What one run may ask about its thread."""

    def __init__(self, engine: EngineServiceStub, ctx: UserExecutionContext, trace: str) -> None:
        self._engine = engine
        self._trace = trace
        self._ctx = ctx

    def renewed(self, ctx: UserExecutionContext) -> None:
        """From now on this one's token is shown."""
        self._ctx = ctx

    async def history(self, limit: int) -> Sequence[bytes]:
        """The earlier runs, the oldest first, each serialized."""
        request = GetHistoryRequest(limit=max(1, min(limit, _MOST)))
        with span("read_history", parent=self._trace):
            found = await self._engine.GetHistory(request, metadata=self._credential)
        return [each.SerializeToString() for each in found.runs]

    async def load(self, name: str) -> tuple[bytes | None, int]:
        """As `RunHost.load`."""
        check_value(name)
        with span("load_value", parent=self._trace):
            found = await self._engine.LoadValue(
                LoadValueRequest(name=name), metadata=self._credential
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
            stored = await self._engine.StoreValue(request, metadata=self._credential)
        return stored.revision

    @property
    def _credential(self) -> tuple[tuple[str, str], ...]:
        return ((TXN_HEADER, self._ctx.token),)
