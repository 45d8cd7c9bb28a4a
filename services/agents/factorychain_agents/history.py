"""The earlier runs of a thread, asked of the engine with the run's own token.

Invariant: which thread and whose it is stands in the token alone; the token stays here.
"""

from __future__ import annotations

from collections.abc import Sequence

from factorychain._core.credentials import TXN_HEADER
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.telemetry import span
from factorychain.engine.v1.engine_pb2 import GetHistoryRequest
from factorychain.engine.v1.engine_pb2_grpc import EngineServiceStub
from factorychain_agents.host import History

_MOST = 1000


class EngineHistory:
    """Asks the engine."""

    def __init__(self, engine: EngineServiceStub) -> None:
        self._engine = engine

    def of(self, ctx: UserExecutionContext, trace: str) -> History:
        """The history that one run may read."""

        async def read(limit: int) -> Sequence[bytes]:
            request = GetHistoryRequest(limit=max(1, min(limit, _MOST)))
            with span("read_history", parent=trace):
                found = await self._engine.GetHistory(request, metadata=((TXN_HEADER, ctx.token),))
            return [each.SerializeToString() for each in found.runs]

        return read
