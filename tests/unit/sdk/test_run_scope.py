"""What was made for a run is closed in order, however the run ends."""

from __future__ import annotations

import asyncio
import sys
import time
import types
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from factorychain import Agent, AgentError, RunContext
from factorychain._instance.active import ActiveRun
from factorychain._instance.definition import define
from factorychain._instance.injection import Injection
from factorychain._instance.recorder import Recorder
from factorychain._instance.runner import abandon, run_agent
from factorychain._instance.spec import Outcome, OutcomeKind, RunSpec


class Connection: ...


class Session: ...


class Notes: ...


class Scene:
    """What the finalisers do, and what happened."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.said: list[str] = []
        self.in_run = asyncio.Event()
        self.in_session = asyncio.Event()
        self.let_session_end = asyncio.Event()
        self.let_run_end = asyncio.Event()
        self.session_fails: Callable[[], None] = lambda: None
        self.waits_in_session = False

    def providers(self) -> list[object]:
        async def connection() -> AsyncIterator[Connection]:
            yield Connection()
            await asyncio.sleep(0)
            self.said.append("connection")

        async def session(connection: Connection) -> AsyncIterator[Session]:
            error = yield Session()
            self.in_session.set()
            if self.waits_in_session:
                await self.let_session_end.wait()
            self.session_fails()
            self.said.append(f"session {type(error).__name__}")

        def notes(session: Session) -> Iterator[Notes]:
            yield Notes()
            self.said.append("notes")

        return [connection, session, notes]


scene = Scene()


class Worker(Agent):
    """Ends as it is told."""

    def __init__(self, notes: Notes) -> None: ...

    async def run(self, ctx: RunContext, text: str) -> str:
        scene.in_run.set()
        if text == "agent error":
            raise AgentError("no rows", reason="NO_ROWS")
        if text == "exit":
            sys.exit(3)
        if text == "wait":
            await asyncio.Event().wait()
        if text == "stubborn":
            while not scene.let_run_end.is_set():
                try:
                    await scene.let_run_end.wait()
                except asyncio.CancelledError:
                    continue
        return text


class Blocked(Worker):
    """Waits in a thread."""

    def run(self, ctx: RunContext, text: str) -> None:  # type: ignore[override]
        ctx._run.loop.call_soon_threadsafe(scene.in_run.set)
        ctx.wait(asyncio.sleep(3600))


class Running:
    """One run of an agent as a task."""

    def __init__(self, text: str, agent: type[Agent] = Worker) -> None:
        self.spec = RunSpec(
            *("acme", "ada", "t1", "r" * 25, "worker", 1),
            input_json=f'{{"text": "{text}"}}',
            trace=f"00-{'a' * 32}-{'b' * 16}-01",
        )
        self.run = ActiveRun(self.spec, Recorder(()), asyncio.get_running_loop())
        self._agent = agent

    async def __aenter__(self) -> Running:
        module: Any = types.ModuleType("agents_of_a_test")
        module.providers = scene.providers()
        definition = define(self._agent)
        self._injection = Injection(module, [definition])
        await self._injection.start()
        assert self._injection.missing == {definition.name: ()}
        self.task = asyncio.create_task(run_agent(self.run, definition, self._injection))
        return self

    async def __aexit__(self, *error: object) -> None:
        scene.let_run_end.set()
        scene.let_session_end.set()
        self.task.cancel()
        await asyncio.wait([self.task])
        await self._injection.close()

    async def outcome(self) -> Outcome:
        return await asyncio.wait_for(asyncio.shield(self.task), 10)


@pytest.fixture(autouse=True)
def fresh_scene() -> None:
    scene.reset()


CLOSED = ["notes", "session NoneType", "connection"]


async def test_a_finished_run() -> None:
    async with Running("done") as running:
        assert (await running.outcome()).kind is OutcomeKind.COMPLETED
    assert scene.said == CLOSED


@pytest.mark.parametrize(
    ("how", "reason", "error"),
    [("agent error", "NO_ROWS", "AgentError"), ("exit", "AGENT_FAILED", "SystemExit")],
)
async def test_a_failed_run(how: str, reason: str, error: str) -> None:
    async with Running(how) as running:
        assert (await running.outcome()).reason == reason
    assert scene.said == ["notes", f"session {error}", "connection"]


@pytest.mark.parametrize("agent", [Worker, Blocked])
async def test_a_cancelled_run_also_in_a_thread(agent: type[Agent]) -> None:
    began_s = time.monotonic()
    async with Running("wait", agent) as running:
        await scene.in_run.wait()
        running.task.cancel()
        assert (await running.outcome()).kind is OutcomeKind.CANCELLED
        assert scene.said == ["notes", "session CancelledError", "connection"]
    assert time.monotonic() - began_s < 10


async def test_a_cancel_while_a_finaliser_waits_ends_that_one_and_not_the_others() -> None:
    scene.waits_in_session = True
    async with Running("done") as running:
        await scene.in_session.wait()
        running.task.cancel()
        assert (await running.outcome()).kind is OutcomeKind.CANCELLED
        assert scene.said == ["notes", "connection"]


async def test_an_abandoned_run_whose_code_goes_on_and_once_only() -> None:
    async with Running("stubborn") as running:
        await scene.in_run.wait()
        running.task.cancel()
        await abandon(running.run)
        assert scene.said == ["notes", "session CancelledError", "connection"]
        assert not running.task.done()
        scene.let_run_end.set()
        await running.outcome()
    assert len(scene.said) == 3


async def test_a_run_that_is_abandoned_before_anything_was_made() -> None:
    run = ActiveRun(Running("x").spec, Recorder(()), asyncio.get_running_loop())
    await abandon(run)
    assert run.closed


def fails(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


async def test_a_finaliser_that_fails_keeps_no_other_from_running_and_fails_the_run() -> None:
    scene.session_fails = fails(AgentError("it was not saved", reason="NOT_SAVED"))
    async with Running("done") as running:
        outcome = await running.outcome()
    assert (outcome.kind, outcome.reason, outcome.text) == (
        *(OutcomeKind.FAILED, "NOT_SAVED"),
        "it was not saved",
    )
    assert scene.said == ["notes", "connection"]


async def test_the_log_says_what_would_allow_what_was_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    scene.session_fails = fails(PermissionError("refused"))
    running = Running("done")
    running.run.hint = lambda error: f"allow {error}" if isinstance(error, OSError) else ""
    async with running:
        assert (await running.outcome()).reason == "AGENT_FAILED"
    assert capsys.readouterr().err.endswith("PermissionError: refused\nHint: allow refused\n")


async def test_what_a_run_failed_with_says_more_than_its_finalisers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    scene.session_fails = fails(ValueError("a detail of the code"))
    async with Running("agent error") as running:
        assert (await running.outcome()).reason == "NO_ROWS"
    assert "a detail of the code" in capsys.readouterr().err
    assert scene.said == ["notes", "connection"]
