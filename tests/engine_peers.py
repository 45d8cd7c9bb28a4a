"""An agents layer and an emitter that a test directs, for engines.

Both write to the thread's real log, as emitter and bridge would; what a test checks is there.
"""

# ruff: noqa: N802 - the methods have the names that gRPC gives them

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from factorychain._core.carried import CarriesCalls
from factorychain._core.credentials import Authenticator, current_run
from factorychain._core.execution_context import Scope, UserExecutionContext
from factorychain._core.grpc_server import GrpcServer, Service
from factorychain._core.ids import Principal, log_subject, thread_key
from factorychain._core.jetstream import JetStream
from factorychain._core.link import ChannelHandler, LinkServer, Receipts
from factorychain._core.log_reader import LogPosition, ThreadLogReader
from factorychain._core.settings import TransportSettings
from factorychain._core.stored import WrongLastSequence
from factorychain._core.txn_tokens import TxnVerifier
from factorychain.agents.v1 import agents_pb2, agents_pb2_grpc
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain.emitter.v1 import emitter_pb2, emitter_pb2_grpc
from factorychain.errors import (
    Capacity,
    ChainDegraded,
    FactoryChainError,
    RequestNotFound,
    RunExists,
    RunNotFound,
)
from factorychain.types.v1.event_pb2 import Event, InputRequested
from factorychain.types.v1.link_pb2 import RunOpen
from factorychain.types.v1.run_pb2 import AgentInfo, RunState

ALIVE_S = 0.05
AGENTS = [
    AgentInfo(name="researcher", available=True),
    AgentInfo(name="quick", available=True),
    AgentInfo(name="broken", available=False, missing=["Database"]),
    AgentInfo(name="brief", available=True, lifetime_s=0.5),
    AgentInfo(name="safe", available=True, repeat_safe=True),
    AgentInfo(name="brief_safe", available=True, repeat_safe=True, lifetime_s=1.0),
]


class Log:
    """The threads' log, written as the bridge writes it."""

    def __init__(self, js: JetStream) -> None:
        self._js = js
        self.reader = ThreadLogReader(js, 1)

    async def append(self, ctx: UserExecutionContext, *events: Event, engine: bool = False) -> bool:
        """Append events of a run; False if it has ended already, or a later attempt has begun."""
        while True:
            # In this order: an ending that comes in between makes the append fail.
            last = await self.reader.last(ctx.principal, ctx.thread)
            found = await self.reader.find_ending(ctx.principal, ctx.thread, ctx.run, ctx.base)
            if found is not None or (last is not None and _is_later(last, ctx)):
                return False
            if events[0].HasField("run_queued") and await self._has_begun(ctx):
                return True  # as the bridge has it: it is too late to say that
            batch = LogBatch(
                tenant=ctx.principal.tenant,
                user=ctx.principal.user,
                thread=ctx.thread,
                run=ctx.run,
                attempt=ctx.attempt,
                first_run_seq=0 if engine else 1,
                last_run_seq=0 if engine else len(events),
                epoch=ctx.base_epoch if last is None else last.epoch,
                first_seq=1 if last is None else last.seq + 1,
                ends=_is_ending(events[-1]),
                events=events,
            )
            try:
                await self._publish(ctx, batch, 0 if last is None else last.stream_seq)
            except WrongLastSequence:
                continue
            return True

    async def _has_begun(self, ctx: UserExecutionContext) -> bool:
        return any(
            run == ctx.run and event.HasField("agent_started")
            for run, event in await self.events(ctx.principal, ctx.thread)
        )

    async def _publish(self, ctx: UserExecutionContext, batch: LogBatch, expected: int) -> None:
        ukey, tkey = ctx.principal.ukey, thread_key(ctx.thread)
        await self._js.stream("EVENTS-0").publish(
            log_subject(1, ukey, tkey),
            batch.SerializeToString(),
            expected_last_subject_seq=expected,
        )

    async def events(self, principal: Principal, thread: str) -> list[tuple[str, Event]]:
        """Every event of a thread with its run."""
        last = await self.reader.last(principal, thread)
        upto = 0 if last is None else last.stream_seq
        return [
            (batch.run, event)
            async for _, batch in self.reader.read_from(principal, thread, 0, upto)
            for event in batch.events
        ]

    async def endings(self, principal: Principal, thread: str, run: str) -> list[Event]:
        events = await self.events(principal, thread)
        return [event for of, event in events if of == run and _is_ending(event)]


def _is_later(last: LogPosition, ctx: UserExecutionContext) -> bool:
    return last.run == ctx.run and last.batch.attempt > ctx.attempt


def completed(output: str = '"done"', **usage: int) -> Event:
    event = Event()
    event.at.GetCurrentTime()
    event.agent_completed.output_json = output
    for name, value in usage.items():
        setattr(event.agent_completed.usage, name, value)
    return event


def interrupted(*requests: InputRequested) -> Event:
    """The ending of a run that waits for its user."""
    event = completed("null")
    event.agent_completed.pending.extend(requests)
    return event


def cancelled(reason: str) -> Event:
    event = Event()
    event.at.GetCurrentTime()
    event.agent_cancelled.reason = reason
    return event


@dataclass
class AgentRun:
    """One run at the agents layer."""

    ctx: UserExecutionContext
    request: agents_pb2.ExecuteRequest
    idle_ms: int = 0
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    cancel_reasons: list[str] = field(default_factory=list)
    waited_s: float = 0.0
    waiting_since_s: float | None = None
    open_requests: list[str] = field(default_factory=list)
    answers: list[tuple[str, str]] = field(default_factory=list)
    renewed: list[UserExecutionContext] = field(default_factory=list)

    def wait(self) -> None:
        """It waits for its user from now on."""
        self.waiting_since_s = time.monotonic()

    def alive(self) -> agents_pb2.RunAlive:
        """What is told of its life now."""
        since_s = self.waiting_since_s
        now_s = self.waited_s + (0.0 if since_s is None else time.monotonic() - since_s)
        return agents_pb2.RunAlive(
            idle_ms=self.idle_ms, waited_ms=int(now_s * 1000), waiting=since_s is not None
        )


class Agents(CarriesCalls, agents_pb2_grpc.AgentsServiceServicer):
    """The agents layer. A run goes on until the test ends it, or is cancelled; `quick` ends alone."""

    def __init__(self, log: Log, verifier: TxnVerifier, boot_id: str = "boot-1") -> None:
        self.log = log
        self.boot_id = boot_id
        self.runs: dict[str, AgentRun] = {}
        self.asked: list[str] = []
        self.executed: list[str] = []
        self.running_of: dict[str, int] = {}
        self.most_running_of: dict[str, int] = {}
        self.refuse_with: FactoryChainError | None = None
        self.before_accepting: Callable[[], Awaitable[None]] = _nothing
        self.stubborn = False
        self.capacity = 1000
        self.accepting = True
        self.room_in_ms = 2000
        self.followed = 0
        self._broken = 0
        self._verifier = verifier
        self._server: GrpcServer | None = None

    @property
    def address(self) -> str:
        assert self._server is not None
        return self._server.address

    async def start(self, listen: str = "127.0.0.1:0") -> None:
        service = agents_pb2.DESCRIPTOR.services_by_name["AgentsService"]
        self._server = GrpcServer(
            TransportSettings(listen=listen),
            [Service(service, agents_pb2_grpc.add_AgentsServiceServicer_to_server, self)],
            Authenticator(txns=self._verifier),
            drain_timeout_s=0.01,
        )
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()

    def break_streams(self) -> None:
        """Every Execute and Attach ends without a word; the runs go on."""
        self._broken += 1

    async def end(self, run: str, event: Event | None = None) -> None:
        """The agent ends by itself; it does so also when whoever asked for it does not wait."""
        await asyncio.shield(asyncio.ensure_future(self._end(run, event)))

    async def _end(self, run: str, event: Event | None) -> None:
        there = self.runs[run]
        if await self.log.append(there.ctx, event or completed()):
            self._left(there)
        there.finished.set()

    def forget(self, run: str) -> None:
        """As if the process had lost the run."""
        self._left(self.runs.pop(run))

    def _left(self, run: AgentRun) -> None:
        ukey = run.ctx.principal.ukey
        self.running_of[ukey] = self.running_of.get(ukey, 0) - 1

    def _came(self, run: AgentRun) -> None:
        ukey = run.ctx.principal.ukey
        now = self.running_of.get(ukey, 0) + 1
        self.running_of[ukey] = now
        self.most_running_of[ukey] = max(now, self.most_running_of.get(ukey, 0))

    # --- RPCs -------------------------------------------------------------------------------

    async def Execute(
        self, request: agents_pb2.ExecuteRequest, context: Any
    ) -> AsyncIterator[agents_pb2.ExecuteResponse]:
        ctx = current_run()
        self.asked.append(ctx.run)
        if self.refuse_with is not None:
            raise self.refuse_with
        if not self.accepting:
            raise ChainDegraded("agents")
        if sum(not each.finished.is_set() for each in self.runs.values()) >= self.capacity:
            raise Capacity(retry_after_s=self.room_in_ms / 1000)
        await self.before_accepting()
        known = self.runs.get(ctx.run)
        if known is not None and known.ctx.attempt >= ctx.attempt:
            raise RunExists
        run = self.runs[ctx.run] = AgentRun(ctx, request)
        self.executed.append(ctx.run)
        self._came(run)
        started = Event()
        started.at.GetCurrentTime()
        started.agent_started.agent = ctx.agent
        started.agent_started.input_json = request.input_json
        started.agent_started.metadata_json = request.metadata_json
        started.agent_started.attempt = ctx.attempt
        await self.log.append(ctx, started)
        accepted = agents_pb2.RunAccepted(address=self.address, boot_id=self.boot_id)
        yield agents_pb2.ExecuteResponse(accepted=accepted)
        if ctx.agent == "quick":
            await self.end(ctx.run)
        async for life in self._life(run):
            yield agents_pb2.ExecuteResponse(**life)

    async def Attach(
        self, request: agents_pb2.AttachRequest, context: Any
    ) -> AsyncIterator[agents_pb2.AttachResponse]:
        run = self._find()
        accepted = agents_pb2.RunAccepted(address=self.address, boot_id=self.boot_id)
        yield agents_pb2.AttachResponse(accepted=accepted)
        async for life in self._life(run):
            yield agents_pb2.AttachResponse(**life)

    async def Cancel(
        self, request: agents_pb2.CancelRequest, context: Any
    ) -> agents_pb2.CancelResponse:
        run = self._find()
        run.cancel_reasons.append(request.reason)
        if not self.stubborn:
            await self.end(run.ctx.run, cancelled(request.reason))
        return agents_pb2.CancelResponse()

    async def Respond(
        self, request: agents_pb2.RespondRequest, context: Any
    ) -> agents_pb2.RespondResponse:
        run = self._find()
        if request.request not in run.open_requests:
            raise RequestNotFound(run.open_requests)
        run.answers.append((request.request, request.value_json))
        return agents_pb2.RespondResponse()

    async def Renew(
        self, request: agents_pb2.RenewRequest, context: Any
    ) -> agents_pb2.RenewResponse:
        self._find().renewed.append(current_run())
        return agents_pb2.RenewResponse()

    async def ListAgents(
        self, request: agents_pb2.ListAgentsRequest, context: Any
    ) -> agents_pb2.ListAgentsResponse:
        return agents_pb2.ListAgentsResponse(agents=AGENTS)

    async def GetLoad(
        self, request: agents_pb2.GetLoadRequest, context: Any
    ) -> agents_pb2.GetLoadResponse:
        running = sum(not each.finished.is_set() for each in self.runs.values())
        return agents_pb2.GetLoadResponse(
            address=self.address,
            boot_id=self.boot_id,
            running=running,
            capacity=self.capacity,
            accepting=self.accepting,
            room_in_ms=0 if running < self.capacity else self.room_in_ms,
        )

    def _find(self) -> AgentRun:
        run = self.runs.get(current_run().run)
        if run is None or run.ctx.attempt != current_run().attempt:
            raise RunNotFound
        return run

    async def _life(self, run: AgentRun) -> AsyncIterator[dict[str, Any]]:
        whole = self._broken
        self.followed += 1
        while not run.finished.is_set():
            if self._broken != whole:
                raise ChainDegraded("agents")
            yield {"alive": run.alive()}
            try:
                async with asyncio.timeout(ALIVE_S):
                    await run.finished.wait()
            except TimeoutError:
                continue
        yield {"finished": agents_pb2.RunFinished(state=RunState.RUN_STATE_COMPLETED)}


async def _nothing() -> None:
    return None


class Emitter(emitter_pb2_grpc.EmitterServiceServicer):
    """Emitter and bridge in one: appends what the engine says of runs that have not ended."""

    def __init__(self, log: Log, verifier: TxnVerifier) -> None:
        self.log = log
        self.opened: list[UserExecutionContext] = []
        self._link = LinkServer(
            "emitter",
            self,
            lambda token: verifier.verify(token, {Scope.LIFECYCLE}),
            lambda receipts: emitter_pb2.EmitResponse(receipts=receipts),
            window_bytes=1 << 18,
        )
        service = emitter_pb2.DESCRIPTOR.services_by_name["EmitterService"]
        self._server = GrpcServer(
            TransportSettings(listen="127.0.0.1:0"),
            [Service(service, emitter_pb2_grpc.add_EmitterServiceServicer_to_server, self)],
            Authenticator(txns=verifier),
            drain_timeout_s=0.01,
        )

    @property
    def address(self) -> str:
        return self._server.address

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop()

    async def Emit(self, requests: Any, context: Any) -> AsyncIterator[emitter_pb2.EmitResponse]:
        async for response in self._link.serve(requests):
            yield response

    def open(
        self, ctx: UserExecutionContext, opening: RunOpen, receipts: Receipts
    ) -> ChannelHandler:
        self.opened.append(ctx)
        return _Settling(self.log, ctx, receipts)


class _Settling:
    durable_run_seq = 0

    def __init__(self, log: Log, ctx: UserExecutionContext, receipts: Receipts) -> None:
        self._log, self._ctx, self._receipts = log, ctx, receipts

    async def wait_opened(self) -> None:
        """Nothing is ever durable before."""

    def events(self, events: list[tuple[int, bytes]]) -> None:
        self._task = asyncio.get_running_loop().create_task(self._append(events))

    async def _append(self, events: list[tuple[int, bytes]]) -> None:
        said = [Event.FromString(event) for _, event in events]
        is_open = [await self._log.append(self._ctx, each, engine=True) for each in said]
        self._receipts.acknowledged(0, ended=not all(is_open) or any(map(_is_ending, said)))

    def renewed(self, ctx: UserExecutionContext) -> None:
        return

    def close(self) -> None:
        return


def _is_ending(event: Event) -> bool:
    kind = event.WhichOneof("event")
    return kind in {"agent_completed", "agent_failed", "agent_cancelled"}
