"""What an agent keeps in its thread, asked for and stored over gRPC as it does."""

from __future__ import annotations

from typing import Any

from factorychain._core.credentials import TXN_HEADER
from factorychain._core.ids import Principal
from factorychain.engine.v1 import engine_pb2 as pb
from tests.engine_harness import Chain, Engine
from tests.token_samples import ADA


class Kept:
    """One run, as its agent asks for it."""

    def __init__(self, chain: Chain, engine: Engine, run: str) -> None:
        self.run = run
        self._engine = engine
        self._metadata = ((TXN_HEADER, chain.agents.runs[run].ctx.token),)

    async def load(self, name: str = "state") -> tuple[bytes | None, int]:
        found = await self._engine.stub.LoadValue(
            pb.LoadValueRequest(name=name), metadata=self._metadata
        )
        return found.value if found.HasField("value") else None, found.revision

    async def store(self, value: bytes | None, revision: int = 0, **fields: Any) -> int:
        request = pb.StoreValueRequest(
            **{"name": "state", "value": value, "revision": revision, "request_id": "1", **fields}
        )
        answer = await self._engine.stub.StoreValue(request, metadata=self._metadata)
        revised: int = answer.revision
        return revised


async def a_run(
    chain: Chain, engine: Engine, principal: Principal = ADA, thread: str = "t1"
) -> Kept:
    started = await engine.start_run(principal, thread=thread)
    return Kept(chain, engine, started.run)
