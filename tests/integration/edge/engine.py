"""An engine that starts what it is told to, behind real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from factorychain._core.carried import CarriesCalls
from factorychain._core.ids import Principal, parse_run_id, run_id_for, thread_id_for
from factorychain._core.status import abort
from factorychain._core.user_tokens import UserVerifier
from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.engine.v1 import engine_pb2_grpc
from factorychain.errors import (
    FactoryChainError,
    NotImplementedYet,
    RunNotFound,
    ThreadNotFound,
)
from factorychain.types.v1.run_pb2 import RUN_STATE_CANCELLED, AgentInfo, Run, Thread
from tests.integration.edge.hub import FakeHub
from tests.integration.edge.people import AUDIENCE, EPOCH, SECRET


class FakeEngine(CarriesCalls, engine_pb2_grpc.EngineServiceServicer):
    """Starts what it is told to start; verifies tokens as the real one does."""

    def __init__(self, hub: FakeHub) -> None:
        self.hub = hub
        self.verifier = UserVerifier(audience=AUDIENCE, secret=SECRET)
        self.starts: list[pb.StartRunRequest] = []
        self.traces: list[str] = []
        self.failure: FactoryChainError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.lists = asyncio.Event()
        self.lists.set()
        self.on_start: Callable[[Principal, str, str], None] = lambda *_: None
        self.existing = False
        self.after = 0
        self.cancelled: list[str] = []
        self.answers: list[tuple[str, str, str]] = []
        self.on_answer: Callable[[Principal, pb.RespondToRunRequest], pb.RespondToRunResponse] = (
            lambda user, request: pb.RespondToRunResponse(run=request.run, thread="t1")
        )

    async def _user(self, context: Any) -> Principal:
        metadata = dict(context.invocation_metadata())
        self.traces.append(metadata.get("traceparent", ""))
        try:
            user = await self.verifier.verify(metadata["authorization"].removeprefix("Bearer "))
        except FactoryChainError as error:
            await abort(context, error)
        return user.principal

    async def StartRun(self, request: pb.StartRunRequest, context: Any) -> pb.StartRunResponse:  # noqa: N802
        user = await self._user(context)
        self.starts.append(request)
        await self.gate.wait()
        if self.failure is not None:
            await abort(context, self.failure)
        run = run_id_for(user, request.request_id)
        thread = request.thread or thread_id_for(run)
        self.on_start(user, thread, run)
        return pb.StartRunResponse(
            run=run, thread=thread, epoch=EPOCH, after=self.after, existing=self.existing
        )

    async def CancelRun(self, request: pb.CancelRunRequest, context: Any) -> pb.CancelRunResponse:  # noqa: N802
        await self._user(context)
        await self.gate.wait()
        try:
            parse_run_id(request.run)
        except FactoryChainError:
            await abort(context, RunNotFound())
        self.cancelled.append(request.run)
        return pb.CancelRunResponse(run=Run(run=request.run, state=RUN_STATE_CANCELLED))

    async def ListAgents(self, request: Any, context: Any) -> pb.ListAgentsResponse:  # noqa: N802
        await self._user(context)
        await self.lists.wait()
        info = AgentInfo(name="researcher", description="Answers", available=True, is_default=True)
        return pb.ListAgentsResponse(agents=[info])

    async def ListThreads(self, request: pb.ListThreadsRequest, context: Any) -> Any:  # noqa: N802
        user = await self._user(context)
        threads = [Thread(thread=f"of-{user.user}", metadata_json='{"a":1}')]
        return pb.ListThreadsResponse(threads=threads, next_page_token=request.page_token)

    async def GetThread(self, request: pb.GetThreadRequest, context: Any) -> Any:  # noqa: N802
        user = await self._user(context)
        if request.thread != f"of-{user.user}":
            await abort(context, ThreadNotFound())
        return pb.GetThreadResponse(thread=Thread(thread=request.thread))

    async def GetUsage(self, request: Any, context: Any) -> pb.GetUsageResponse:  # noqa: N802
        await self._user(context)
        return pb.GetUsageResponse(max_active_runs=2, active_runs=1)

    async def GetKeys(self, request: Any, context: Any) -> pb.GetKeysResponse:  # noqa: N802
        return pb.GetKeysResponse(jwks_json='{"keys":[]}')

    async def _later(self, request: Any, context: Any) -> Any:
        await self._user(context)
        await abort(context, NotImplementedYet("this"))

    async def RespondToRun(  # noqa: N802
        self, request: pb.RespondToRunRequest, context: Any
    ) -> pb.RespondToRunResponse:
        user = await self._user(context)
        if self.failure is not None:
            await abort(context, self.failure)
        self.answers.append((request.run, request.request, request.value_json))
        return self.on_answer(user, request)

    UpdateThread = DeleteThread = RecordFeedback = _later
    GetRun = ListRuns = GetHistory = LoadValue = StoreValue = _later

    def WatchRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError
