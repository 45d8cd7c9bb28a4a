"""AgentsService: protobuf in, the domain's call, protobuf out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from factorychain._core.carried import CarriesCalls
from factorychain._core.credentials import current_run
from factorychain._core.telemetry import current_traceparent
from factorychain.agents.v1 import agents_pb2 as pb
from factorychain.agents.v1.agents_pb2_grpc import AgentsServiceServicer
from factorychain.errors import RunNotFound
from factorychain.types.v1.run_pb2 import RunState
from factorychain_agents.boot import Boot
from factorychain_agents.factory import StartRequest, report_every_s
from factorychain_agents.live_run import LiveRun
from factorychain_agents.registry import AgentRegistry
from factorychain_agents.runs import Runs

_Context = grpc.aio.ServicerContext[Any, Any]


class AgentsService(CarriesCalls, AgentsServiceServicer):
    """Serves the agents layer."""

    def __init__(
        self,
        runs: Runs,
        registry: AgentRegistry,
        boot: Boot,
        alive_interval_s: float,
        is_serving: Callable[[], bool],
    ) -> None:
        self._runs = runs
        self._registry = registry
        self._boot = boot
        self._alive_interval_s = alive_interval_s
        self._is_serving = is_serving

    async def Execute(  # noqa: N802 - the name in the proto
        self, request: pb.ExecuteRequest, context: _Context
    ) -> AsyncIterator[pb.ExecuteResponse]:
        start = StartRequest(
            input_json=request.input_json,
            metadata_json=request.metadata_json,
            context=[(each.description, each.value) for each in request.context],
            replaces=request.replaces,
            resumes=request.resumes,
            resume_json=request.resume_json,
        )
        run = await self._runs.accept(current_run(), start, current_traceparent())
        yield pb.ExecuteResponse(accepted=self._accepted())
        async for alive in self._life(run):
            yield pb.ExecuteResponse(alive=alive)
        _check_ended(run)
        yield pb.ExecuteResponse(finished=pb.RunFinished(state=run.state))

    async def Attach(  # noqa: N802
        self, request: pb.AttachRequest, context: _Context
    ) -> AsyncIterator[pb.AttachResponse]:
        run = self._runs.find(current_run())
        yield pb.AttachResponse(accepted=self._accepted())
        yield pb.AttachResponse(alive=_alive(run))  # how long it has waited is known only here
        async for alive in self._life(run):
            yield pb.AttachResponse(alive=alive)
        _check_ended(run)
        yield pb.AttachResponse(finished=pb.RunFinished(state=run.state))

    async def Cancel(self, request: pb.CancelRequest, context: _Context) -> pb.CancelResponse:  # noqa: N802
        self._runs.find(current_run()).cancel(request.reason or "USER")
        return pb.CancelResponse()

    async def Respond(self, request: pb.RespondRequest, context: _Context) -> pb.RespondResponse:  # noqa: N802
        await self._runs.find(current_run()).respond(request.request, request.value_json)
        return pb.RespondResponse()

    async def Renew(self, request: pb.RenewRequest, context: _Context) -> pb.RenewResponse:  # noqa: N802
        self._runs.renew(current_run())
        return pb.RenewResponse()

    async def ListAgents(  # noqa: N802
        self, request: pb.ListAgentsRequest, context: _Context
    ) -> pb.ListAgentsResponse:
        return pb.ListAgentsResponse(agents=self._registry.infos())

    async def GetLoad(self, request: pb.GetLoadRequest, context: _Context) -> pb.GetLoadResponse:  # noqa: N802
        room = self._runs.room
        return pb.GetLoadResponse(
            address=self._boot.address(),
            boot_id=self._boot.boot_id,
            running=room.running,
            capacity=room.capacity,
            accepting=self._is_serving() and not self._runs.draining,
            room_in_ms=int(room.free_in_s() * 1000),
        )

    def _accepted(self) -> pb.RunAccepted:
        return pb.RunAccepted(address=self._boot.address(), boot_id=self._boot.boot_id)

    async def _life(self, run: LiveRun) -> AsyncIterator[pb.RunAlive]:
        """Signs of life until the run is finished."""
        interval_s = report_every_s(run.ctx, self._alive_interval_s)
        waiting = False
        while True:
            news = run.news
            if run.finished.is_set():
                return
            if run.waiting is waiting:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(interval_s):
                        await news.wait()
            if not run.finished.is_set():
                waiting = run.waiting
                yield _alive(run)


def _check_ended(run: LiveRun) -> None:
    """A run that this process has given up, and not ended, is not here any more."""
    if run.state == RunState.RUN_STATE_RUNNING:
        raise RunNotFound


def _alive(run: LiveRun) -> pb.RunAlive:
    return pb.RunAlive(
        idle_ms=int(run.idle_s * 1000), waited_ms=int(run.waited_s * 1000), waiting=run.waiting
    )
