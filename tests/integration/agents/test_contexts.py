"""What the service does for one run is done in nobody else's context.

ogx#5227: a worker that the first user's request had started kept that user's context variables for all
who came after. CPython#140947: callbacks of transports run in the context of whoever caused them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextvars import ContextVar, copy_context
from pathlib import Path

import pytest

from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain._instance.spec import Outcome, OutcomeKind, RunSpec, SpanRecord
from factorychain.types.v1.run_pb2 import Run
from factorychain_agents.executor import RunHandle
from tests.integration.agents.conftest import Chain, serving
from tests.silent_host import SilentHost
from tests.waiting import until_true

MODULES = (
    "tests.integration.agents.talking_samples",
    "tests.integration.agents.talking_threaded_samples",
)
USERS = ("ada", "bob", "cyd", "dan")

whose: ContextVar[str] = ContextVar("whose", default="nobody")


@pytest.fixture(params=["talks", "talks-threaded"])
def agent(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[Chain]:
    async with serving(tmp_path, *MODULES, isolation="process", idle_processes_min=1) as started:
        yield started


class Heard(SilentHost):
    """`RunHost` that notes in whose context it hears something, by what it hears."""

    def __init__(self, record: bytes) -> None:
        super().__init__()
        self.contexts: set[tuple[str, str]] = set()
        self._record = record

    def note(self, what: str) -> None:
        self.contexts.add((what, whose.get()))

    async def emit(self, kind: int, event: bytes) -> None:
        self.note("emit")
        await asyncio.sleep(0)  # a slow link: the instance's window is full before it is empty

    def beat(self) -> None:
        self.note("beat")

    def created(self) -> None:
        self.note("created")

    def span(self, record: SpanRecord) -> None:
        self.note("span")

    async def history(self, limit: int) -> Sequence[bytes]:
        self.note("history")
        return [self._record] * 3


async def test_an_idle_process_has_nothing_of_the_context_that_it_was_made_in(
    chain: Chain, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = chain.agents.processes
    for user in USERS:
        heard = Heard(_record(user))
        monkeypatch.setattr(processes, "show", lambda *_, heard=heard: heard.note("print"))
        ctx = chain.token(agent, principal=Principal("acme", user))
        outcome = await _in_context_of(user, chain, ctx, heard)
        assert outcome.kind is OutcomeKind.COMPLETED, outcome
        assert outcome.output_json == f'["{user}","{user}","{user}"]'
        assert {"emit", "print", "span", "history"} <= {what for what, _ in heard.contexts}
        assert {context for _, context in heard.contexts} <= {user, "nobody"}
        # The next one gets a process that was made because this one took its own.
        await until_true(lambda: processes.settled, 30)


async def _in_context_of(
    user: str, chain: Chain, ctx: UserExecutionContext, heard: Heard
) -> Outcome:
    async def run() -> Outcome:
        whose.set(user)
        handle: RunHandle = await chain.agents.processes.start_run(_spec(ctx), heard)
        return await handle.wait()

    context = copy_context()
    return await asyncio.get_running_loop().create_task(run(), context=context)


def _spec(ctx: UserExecutionContext) -> RunSpec:
    return RunSpec(
        tenant=ctx.principal.tenant,
        user=ctx.principal.user,
        thread=ctx.thread,
        run=ctx.run,
        agent=ctx.agent,
        attempt=1,
        input_json=f'{{"text":"{ctx.principal.user}"}}',
        beat_every_s=0.01,
        trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )


def _record(user: str) -> bytes:
    return Run(run="r", input_json=f'{{"text":"{user}"}}').SerializeToString()
