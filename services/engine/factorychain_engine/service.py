"""EngineService: protobuf in, domain call, protobuf out.

Invariant: the principal is that of the verified token, never of a request field; and an id is looked
up under that principal before anything else is said about it, also by calls of later versions.
"""

# ruff: noqa: N802 - the methods have the names that gRPC gives them

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from factorychain._core.carried import CarriesCalls
from factorychain._core.credentials import current_run, current_user, remaining_s
from factorychain._core.ids import Principal, parse_run_id, parse_thread_id
from factorychain._core.plans import claimed_plan
from factorychain._core.telemetry import current_traceparent
from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.engine.v1 import engine_pb2_grpc
from factorychain.errors import ChainDegraded, InvalidField, NotImplementedYet
from factorychain.types.v1.run_pb2 import Run
from factorychain_engine.agents.catalog import AgentCatalog
from factorychain_engine.cancelling import Canceller
from factorychain_engine.lifeline import EndReason
from factorychain_engine.limits import LimitsOf
from factorychain_engine.records.endings import has_ended, usage_of
from factorychain_engine.records.thread_values import Change, ThreadValues
from factorychain_engine.responding import Responder
from factorychain_engine.standstill import Standstill
from factorychain_engine.supervisor import RunSupervisor
from factorychain_engine.tokens.public_keys import PublicKeys
from factorychain_engine.validation import InputLimits, parse_answer, parse_start
from factorychain_engine.views.pages import page_size
from factorychain_engine.views.run_views import RunViews, runs_listing
from factorychain_engine.views.thread_views import THREADS, ThreadViews, thread_listing

if TYPE_CHECKING:
    import grpc

    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

CANCEL_WAIT_S: Final = 30.0
LEFT_TO_ANSWER_S: Final = 0.2
DEFAULT_PAGE: Final = 50
DEFAULT_THREAD_PAGE: Final = 200


class EngineServicer(CarriesCalls, engine_pb2_grpc.EngineServiceServicer):
    """Serves EngineService."""

    def __init__(
        self,
        *,
        supervisor: RunSupervisor,
        standstill: Standstill,
        canceller: Canceller,
        responder: Responder,
        runs: RunViews,
        threads: ThreadViews,
        values: ThreadValues,
        catalog: AgentCatalog,
        keys: PublicKeys,
        input_limits: InputLimits,
        limits: LimitsOf,
        plan_claim: str,
    ) -> None:
        self._supervisor = supervisor
        self._standstill = standstill
        self._canceller = canceller
        self._responder = responder
        self._runs = runs
        self._threads = threads
        self._values = values
        self._catalog = catalog
        self._keys = keys
        self._input_limits = input_limits
        self._limits = limits
        self._plan_claim = plan_claim

    # --- runs -------------------------------------------------------------------------------

    async def StartRun(self, request: pb.StartRunRequest, context: Context) -> pb.StartRunResponse:
        start = parse_start(_principal(), request, self._input_limits, self._plan())
        await self._standstill.caught_up()
        started = await self._supervisor.start_run(start, current_traceparent())
        return pb.StartRunResponse(
            run=started.run,
            thread=started.thread,
            epoch=started.epoch,
            after=started.after,
            existing=started.existing,
            trace=started.trace,
            position=started.position,
        )

    async def CancelRun(
        self, request: pb.CancelRunRequest, context: Context
    ) -> pb.CancelRunResponse:
        principal = _principal()
        run = await self._run(principal, request.run)
        cancel = self._canceller.cancel_run
        if not has_ended(run) and not await cancel(
            principal, run.run, EndReason.USER, _patience_s()
        ):
            raise ChainDegraded(
                "agents", message="the run was told to stop and has not ended yet; ask again"
            )
        return pb.CancelRunResponse(run=await self._run(principal, request.run))

    async def RespondToRun(
        self, request: pb.RespondToRunRequest, context: Context
    ) -> pb.RespondToRunResponse:
        principal = _principal()
        try:
            answer = parse_answer(request, self._input_limits.answer_max_bytes)
        except InvalidField:
            await self._run(principal, request.run)  # said of the caller's own runs only
            raise
        goes_on = await self._responder.respond(
            principal, answer, current_traceparent(), self._plan()
        )
        return pb.RespondToRunResponse(
            run=goes_on.run,
            thread=goes_on.thread,
            epoch=goes_on.epoch,
            after=goes_on.after,
            existing=goes_on.existing,
            trace=goes_on.trace,
            open=goes_on.open,
        )

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        return pb.GetRunResponse(run=await self._run(_principal(), request.run))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        principal = _principal()
        thread = parse_thread_id(request.thread) if request.thread else ""
        if thread:
            await self._threads.thread(principal, thread)
        page = await self._runs.runs(
            principal,
            thread=thread,
            size=page_size(request.page_size, DEFAULT_PAGE),
            token=request.page_token,
            active_only=request.active_only,
        )
        listing = runs_listing(thread, request.active_only)
        return pb.ListRunsResponse(
            runs=page.items, next_page_token=page.next_token(principal, listing)
        )

    async def WatchRun(
        self, request: pb.WatchRunRequest, context: Context
    ) -> AsyncIterator[pb.WatchRunResponse]:
        async for run in self._runs.watch(_principal(), parse_run_id(request.run)):
            yield pb.WatchRunResponse(run=run)

    async def RecordFeedback(
        self, request: pb.RecordFeedbackRequest, context: Context
    ) -> pb.RecordFeedbackResponse:
        await self._run(_principal(), request.run)
        raise NotImplementedYet("RecordFeedback")

    async def _run(self, principal: Principal, run: str) -> Run:
        return await self._runs.run(principal, parse_run_id(run))

    # --- agents, limits, keys ---------------------------------------------------------------

    async def ListAgents(
        self, request: pb.ListAgentsRequest, context: Context
    ) -> pb.ListAgentsResponse:
        return pb.ListAgentsResponse(agents=await self._catalog.agents())

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        principal = _principal()
        used = await self._runs.used(principal)
        limits = self._limits(principal, self._plan())
        return pb.GetUsageResponse(
            max_active_runs=limits.active_runs,
            active_runs=used.active,
            max_queued_runs=limits.queued_runs,
            queued_runs=used.queued,
            lifetime_s=limits.lifetime_s,
            usage=usage_of(used.totals),
            recorded_runs=used.totals.runs,
            plan=limits.plan,
            run_max_tokens=limits.run_tokens or 0,
            user_max_tokens=limits.user_tokens or 0,
            tenant_max_tokens=limits.tenant_tokens or 0,
        )

    def _plan(self) -> str:
        return claimed_plan(current_user().claims, self._plan_claim)

    async def GetKeys(self, request: pb.GetKeysRequest, context: Context) -> pb.GetKeysResponse:
        return pb.GetKeysResponse(jwks_json=self._keys.jwks_json())

    # --- threads ----------------------------------------------------------------------------

    async def ListThreads(
        self, request: pb.ListThreadsRequest, context: Context
    ) -> pb.ListThreadsResponse:
        principal = _principal()
        size = page_size(request.page_size, DEFAULT_PAGE)
        page = await self._threads.threads(principal, size=size, token=request.page_token)
        return pb.ListThreadsResponse(
            threads=page.items, next_page_token=page.next_token(principal, THREADS)
        )

    async def GetThread(
        self, request: pb.GetThreadRequest, context: Context
    ) -> pb.GetThreadResponse:
        principal = _principal()
        thread = await self._threads.thread(principal, parse_thread_id(request.thread))
        page = await self._threads.runs(
            principal,
            thread.thread,
            size=page_size(request.page_size, DEFAULT_THREAD_PAGE),
            token=request.page_token,
        )
        token = page.next_token(principal, thread_listing(thread.thread))
        return pb.GetThreadResponse(thread=thread, runs=page.items, next_page_token=token)

    async def UpdateThread(
        self, request: pb.UpdateThreadRequest, context: Context
    ) -> pb.UpdateThreadResponse:
        await self._threads.thread(_principal(), parse_thread_id(request.thread))
        raise NotImplementedYet("UpdateThread")

    async def DeleteThread(
        self, request: pb.DeleteThreadRequest, context: Context
    ) -> pb.DeleteThreadResponse:
        await self._threads.thread(_principal(), parse_thread_id(request.thread))
        raise NotImplementedYet("DeleteThread")

    async def GetHistory(
        self, request: pb.GetHistoryRequest, context: Context
    ) -> pb.GetHistoryResponse:
        limit = page_size(request.limit, DEFAULT_PAGE)
        return pb.GetHistoryResponse(runs=await self._threads.history(current_run(), limit))

    # --- what agents keep in a thread -------------------------------------------------------

    async def LoadValue(
        self, request: pb.LoadValueRequest, context: Context
    ) -> pb.LoadValueResponse:
        loaded = await self._values.load(current_run(), request.name)
        return pb.LoadValueResponse(value=loaded.value, revision=loaded.revision)

    async def StoreValue(
        self, request: pb.StoreValueRequest, context: Context
    ) -> pb.StoreValueResponse:
        value = request.value if request.HasField("value") else None
        change = Change(request.name, value, request.revision, request.request_id)
        return pb.StoreValueResponse(revision=await self._values.store(current_run(), change))


def _principal() -> Principal:
    return current_user().principal


def _patience_s() -> float:
    """How long the caller waits for a cancelled run to end, less what the answer takes."""
    left_s = remaining_s()
    wait_s = CANCEL_WAIT_S if left_s is None else min(left_s, CANCEL_WAIT_S)
    return max(0.0, wait_s - LEFT_TO_ANSWER_S)
