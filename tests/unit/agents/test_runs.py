"""The life of a run, with an executor and a link that do as they are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from factorychain import Agent, RunContext
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain._instance import events
from factorychain._instance.definition import define
from factorychain._instance.host import RunHost
from factorychain._instance.spec import Outcome, OutcomeKind, RunSpec
from factorychain.errors import (
    AttemptSuperseded,
    Capacity,
    ChainDegraded,
    FactoryChainError,
    RunExists,
    RunNotFound,
)
from factorychain.types.v1.event_pb2 import Event
from factorychain.types.v1.run_pb2 import RunState
from factorychain.usage import Usage
from factorychain_agents.conversation import EngineConversation
from factorychain_agents.executor import RunHandle
from factorychain_agents.factory import AgentInstanceFactory, InstanceLimits, StartRequest
from factorychain_agents.host import RunLink
from factorychain_agents.registry import AgentRegistry
from factorychain_agents.runs import Rejections, Runs
from tests.silent_host import SilentConversation
from tests.token_samples import run_context
from tests.waiting import until_true

OUTAGE_MAX_S = 3600.0
START = StartRequest('{"text": "hi"}')


class Quiet(Agent):
    """Never runs: the executor is a fake."""

    name = "quiet"

    async def run(self, ctx: RunContext, text: str) -> None: ...


class FakeLink:
    """One run's end of the link."""

    durable_run_seq = 0
    has_room = True

    def __init__(self, refused: Callable[[], None], rejected: Rejections) -> None:
        self.events: list[Event] = []
        self.durable = asyncio.Event()
        self.durable.set()
        self.refusal: FactoryChainError | None = None
        self.is_closed = False
        self.tokens: list[str] = []
        self.tell_refused = refused
        self.tell_rejected = rejected

    def refuse(self, error: FactoryChainError) -> None:
        self.refusal = error
        self.tell_refused()

    def offer(self, run_seq: int, events: Sequence[bytes], *, closes_call: str = "") -> None:
        self.events += [Event.FromString(each) for each in events]
        assert run_seq == len(self.events)

    async def send(
        self, event: bytes, run_seq: int, *, opens_call: str = "", closes_call: str = ""
    ) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.offer(run_seq, [event])

    async def wait_ended(self) -> None:
        if self.refusal is not None:
            raise self.refusal
        await self.durable.wait()

    def renew(self, token: str) -> None:
        self.tokens.append(token)

    async def close(self) -> None:
        self.is_closed = True

    @property
    def kinds(self) -> list[str]:
        return [each.WhichOneof("event") or "" for each in self.events]


class FakeHandle:
    """One instance: the test decides what it comes to."""

    def __init__(self, host: RunHost) -> None:
        self.host = host
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.cancelled = 0
        self.abandoned = False
        self.rejections: list[str] = []

    def cancel(self) -> None:
        self.cancelled += 1

    def reject(self, reason: str, message: str) -> None:
        self.rejections.append(reason)

    async def wait(self) -> Outcome:
        return await asyncio.shield(self.outcome)

    def abandon(self) -> None:
        self.abandoned = True


class FakeModels:
    """What one run has of the gateway."""

    url, key = "http://gateway", "its key"
    credentials = (("tracker", "/c/tracker"),)

    def __init__(self, used: Usage) -> None:
        self.said: list[str] = []
        self.used = used

    def renew(self, ctx: UserExecutionContext) -> None:
        self.said.append(f"renew {ctx.expires_at_s:.0f}")

    def cancel(self) -> None:
        self.said.append("cancel")

    async def close(self) -> Usage:
        self.said.append("close")
        return self.used


class FakeGateway:
    """Gives each run its own."""

    def __init__(self) -> None:
        self.models: list[FakeModels] = []
        self.used = Usage()

    def open(self, ctx: UserExecutionContext, trace: str) -> FakeModels:
        self.models.append(FakeModels(self.used))
        return self.models[-1]


class World:
    """Runs, and what they talk to."""

    name = "fake executor"
    healthy = True
    running = 0

    def __init__(self, max_runs: int = 10, grace_s: float = 0.02) -> None:
        self.links: list[FakeLink] = []
        self.handles: list[FakeHandle] = []
        self.specs: list[RunSpec] = []
        self.gateway = FakeGateway()
        self.is_ready = True
        self.refuse_start: FactoryChainError | None = None
        self.can_start = asyncio.Event()
        self.can_start.set()
        registry = AgentRegistry([define(Quiet)])
        factory = AgentInstanceFactory(registry, self, InstanceLimits(1000, 5))
        self.runs = Runs(
            factory,
            self,
            lambda ctx, trace, superseded: SilentConversation(),
            max_runs=max_runs,
            cancel_grace_s=grace_s,
            outage_max_s=OUTAGE_MAX_S,
            gateway=self.gateway,
        )

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def start_run(self, spec: RunSpec, host: RunHost) -> RunHandle:
        if self.refuse_start is not None:
            raise self.refuse_start
        await self.can_start.wait()
        self.specs.append(spec)
        self.handles.append(FakeHandle(host))
        return self.handles[-1]

    async def ready(self) -> bool:
        return self.is_ready

    async def open(
        self,
        ctx: UserExecutionContext,
        trace: str,
        rejected: Rejections,
        refused: Callable[[], None],
    ) -> RunLink:
        self.links.append(FakeLink(refused, rejected))
        return self.links[-1]

    async def begun(self, ctx: UserExecutionContext) -> tuple[Any, FakeHandle, FakeLink]:
        run = await self.runs.accept(ctx, START, "")
        await until_true(lambda: len(self.handles) == len(self.links))
        return run, self.handles[-1], self.links[-1]


def token(
    run: str = "r1", attempt: int = 1, user: str = "ada", life_s: float = 60
) -> UserExecutionContext:
    now_s = time.time()
    return run_context(
        principal=Principal("acme", user),
        run=run,
        agent="quiet",
        attempt=attempt,
        deadline_s=now_s + life_s,
        expires_at_s=now_s + life_s + 60,
        token="secret",
    )


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    for handle in made.handles:
        if not handle.outcome.done():
            handle.outcome.set_result(Outcome(OutcomeKind.COMPLETED, "null"))
    await made.runs.stop()


async def test_started_is_said_before_the_instance_is_made(world: World) -> None:
    await world.runs.accept(token(), START, "")
    assert world.handles == []
    assert world.links[0].kinds == ["agent_started"]


async def test_a_run_is_finished_and_gone_only_when_its_ending_is_durable(world: World) -> None:
    run, handle, link = await world.begun(token())
    link.durable.clear()
    handle.outcome.set_result(Outcome(OutcomeKind.COMPLETED, '"ok"', usage=Usage(requests=2)))
    await until_true(lambda: link.kinds[-1] == "agent_completed")
    assert not run.finished.is_set()
    assert len(world.runs) == 1
    link.durable.set()
    await run.finished.wait()
    await asyncio.sleep(0)
    assert (run.state, link.is_closed, len(world.runs)) == (RunState.RUN_STATE_COMPLETED, True, 0)
    assert link.events[-1].agent_completed.usage.requests == 2


@pytest.mark.parametrize("kind", OutcomeKind)
async def test_what_the_gateway_counted_is_added_to_what_the_agent_did(
    world: World, kind: OutcomeKind
) -> None:
    world.gateway.used = Usage(10, 5, 2, 1, 1)
    run, handle, link = await world.begun(token())
    if kind is OutcomeKind.CANCELLED:
        run.cancel("USER")
    handle.outcome.set_result(Outcome(kind, '"ok"', usage=Usage(1, 1, 1, 1, 1)))
    await run.finished.wait()
    last = link.events[-1]
    usage = getattr(last, last.WhichOneof("event") or "").usage
    assert (usage.input_tokens, usage.output_tokens, usage.requests) == (11, 6, 2)


async def test_a_run_has_its_key_and_loses_it_when_it_is_told_to_stop(world: World) -> None:
    run, handle, _ = await world.begun(token())
    (models,) = world.gateway.models
    spec = world.specs[0]
    assert (spec.gateway_url, spec.gateway_key) == ("http://gateway", "its key")
    assert spec.credentials == (("tracker", "/c/tracker"),)
    assert models.said == []
    run.cancel("USER")
    assert models.said == ["cancel"], "before its code has stopped"
    handle.outcome.set_result(Outcome(OutcomeKind.CANCELLED))
    await run.finished.wait()
    assert "close" in models.said


async def test_calls_that_the_agent_left_open_are_closed_before_the_ending(world: World) -> None:
    run, handle, link = await world.begun(token())
    for call in ("c1", "c2"):
        event = events.tool_executing("", call, "search", "{}", "")
        await handle.host.emit(events.TOOL_EXECUTING, event)
    handle.outcome.set_result(Outcome(OutcomeKind.COMPLETED, "null"))
    await run.finished.wait()
    assert link.kinds[-3:] == ["tool_completed", "tool_completed", "agent_completed"]
    assert [each.tool_completed.call for each in link.events[-3:-1]] == ["c1", "c2"]


async def test_the_first_cancel_counts_and_whatever_the_agent_did_then_does_not(
    world: World,
) -> None:
    run, handle, link = await world.begun(token())
    run.cancel("INTERRUPTED")
    run.cancel("DEADLINE")
    assert handle.cancelled == 1
    handle.outcome.set_result(Outcome(OutcomeKind.COMPLETED, '"too late"', usage=Usage(requests=1)))
    await run.finished.wait()
    assert link.events[-1].agent_cancelled.reason == "INTERRUPTED"
    assert link.events[-1].agent_cancelled.usage.requests == 1


async def test_a_cancel_after_the_end_changes_nothing(world: World) -> None:
    run, handle, link = await world.begun(token())
    handle.outcome.set_result(Outcome(OutcomeKind.COMPLETED, "null"))
    await run.finished.wait()
    run.cancel("USER")
    assert link.kinds == ["agent_started", "agent_completed"]


async def test_an_agent_that_does_not_stop_is_abandoned_after_the_grace(world: World) -> None:
    run, handle, link = await world.begun(token())
    run.cancel("UNRESPONSIVE")
    await run.finished.wait()
    assert handle.abandoned
    assert link.events[-1].agent_failed.reason == "UNRESPONSIVE"
    with pytest.raises(FactoryChainError, match="the run is over"):
        await handle.host.emit(events.AGENT_THINKING, events.thinking("", "still here"))


async def test_an_agent_that_cancels_itself_has_failed(world: World) -> None:
    run, handle, link = await world.begun(token())
    handle.outcome.set_result(Outcome(OutcomeKind.CANCELLED))
    await run.finished.wait()
    assert link.events[-1].agent_failed.reason == "AGENT_FAILED"


async def test_the_deadline_of_the_token_is_kept(world: World) -> None:
    run, handle, link = await world.begun(token(life_s=0.02))
    await run.finished.wait()
    assert handle.cancelled
    assert link.events[-1].agent_failed.reason == "DEADLINE"


async def test_a_run_that_another_one_settled_is_stopped_and_says_no_ending(world: World) -> None:
    run, handle, link = await world.begun(token())
    link.refuse(AttemptSuperseded())
    assert handle.cancelled
    handle.outcome.set_result(Outcome(OutcomeKind.CANCELLED))
    await run.finished.wait()
    assert link.kinds == ["agent_started"]
    assert link.is_closed


async def test_an_agent_that_fails_of_a_later_attempt_does_not_end_the_run(world: World) -> None:
    async def superseded(*_: object, **__: object) -> None:
        raise AttemptSuperseded

    engine: Any = SimpleNamespace(LoadValue=superseded)
    world.runs._conversation = partial(EngineConversation, engine)
    run, handle, link = await world.begun(token())
    with pytest.raises(AttemptSuperseded):
        await handle.host.load("count")
    assert handle.cancelled
    handle.outcome.set_result(Outcome(OutcomeKind.FAILED, reason="AGENT_FAILED"))
    await run.finished.wait()
    assert link.kinds == ["agent_started"]


async def test_a_start_that_the_executor_refuses_ends_as_failed(world: World) -> None:
    world.refuse_start = Capacity()
    run = await world.runs.accept(token(), START, "")
    await run.finished.wait()
    assert world.links[0].events[-1].agent_failed.reason == "CAPACITY"


async def test_a_run_that_waits_for_its_instance_can_be_cancelled(world: World) -> None:
    world.can_start.clear()
    run = await world.runs.accept(token(), START, "")
    run.cancel("USER")
    await run.finished.wait()
    assert world.links[0].events[-1].agent_cancelled.reason == "USER"
    assert world.handles == []


async def test_an_attempt_is_accepted_once_and_a_later_one_takes_over(world: World) -> None:
    run, handle, _ = await world.begun(token())
    with pytest.raises(RunExists):
        await world.runs.accept(token(), START, "")
    later = await world.runs.accept(token(attempt=2), START, "")
    assert handle.cancelled
    handle.outcome.set_result(Outcome(OutcomeKind.CANCELLED))
    await run.finished.wait()
    await asyncio.sleep(0)
    assert world.links[0].kinds == ["agent_started"]
    assert world.runs.find(token(attempt=2)) is later
    with pytest.raises(RunNotFound):
        world.runs.find(token())


async def test_a_process_that_stops_ends_no_run_that_can_begin_again_elsewhere() -> None:
    world = World()
    again = replace(token(), limits={"attempts": 2})
    run, handle, link = await world.begun(again)
    last, last_handle, last_link = await world.begun(replace(again, run="r2", attempt=2))
    stopping = asyncio.ensure_future(world.runs.stop())
    await until_true(lambda: handle.cancelled and last_handle.cancelled)
    for each in (handle, last_handle):
        each.outcome.set_result(Outcome(OutcomeKind.CANCELLED))
    await stopping
    assert link.kinds == ["agent_started"]
    assert (run.state, link.is_closed) == (RunState.RUN_STATE_RUNNING, True)
    assert last_link.events[-1].agent_failed.reason == "AGENT_LOST"
    assert last.state == RunState.RUN_STATE_FAILED


async def test_a_run_is_found_by_its_own_principal_alone(world: World) -> None:
    run, _, _ = await world.begun(token())
    assert world.runs.find(token()) is run
    with pytest.raises(RunNotFound):
        world.runs.find(token(user="eve"))
    with pytest.raises(RunNotFound):
        world.runs.find(token(run="r2"))


async def test_what_is_refused_leaves_nothing_and_may_come_again(world: World) -> None:
    world.is_ready = False
    with pytest.raises(ChainDegraded):
        await world.runs.accept(token(), START, "")
    world.is_ready = True
    assert world.links == []
    await world.begun(token())


async def test_a_full_process_refuses() -> None:
    world = World(max_runs=1)
    _, handle, _ = await world.begun(token())
    with pytest.raises(Capacity):
        await world.runs.accept(token("r2"), START, "")
    handle.outcome.set_result(Outcome(OutcomeKind.COMPLETED, "null"))
    await world.runs.stop()


async def test_rejected_events_are_told_to_the_agent(world: World) -> None:
    _, handle, link = await world.begun(token())
    link.tell_rejected(2, "EVENT_TOO_LARGE", "too large")
    assert handle.rejections == ["EVENT_TOO_LARGE"]


async def test_stopping_ends_every_run_as_lost_and_accepts_no_more() -> None:
    world = World()
    run, handle, link = await world.begun(token())
    stopping = asyncio.create_task(world.runs.stop())
    await until_true(lambda: handle.cancelled > 0)
    handle.outcome.set_result(Outcome(OutcomeKind.CANCELLED))
    await stopping
    assert run.finished.is_set()
    assert link.events[-1].agent_failed.reason == "AGENT_LOST"
    assert link.events[-1].agent_failed.retryable
    with pytest.raises(ChainDegraded):
        await world.runs.accept(token("r2"), START, "")


async def test_a_stopping_process_does_not_wait_the_whole_grace_for_an_agent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("factorychain_agents.live_run._LAST_GRACE_S", 0.01)
    world = World(grace_s=3600)
    _, handle, link = await world.begun(token())
    async with asyncio.timeout(5):
        await world.runs.stop()
    assert handle.abandoned
    assert link.events[-1].agent_failed.reason == "AGENT_LOST"


async def test_the_spec_of_an_instance_holds_no_credential(world: World) -> None:
    run, _, _ = await world.begun(token())
    assert "secret" not in repr(run.spec)
