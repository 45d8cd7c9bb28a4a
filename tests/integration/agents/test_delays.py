"""Every line of the agents service is slow, and runs are cancelled at every await.

redis-py#2624: a request that was cancelled between its sending and its answer left the answer on a pooled
connection, for the next user. MCP's CVE-2026-25536 and autogen's host: requests of two users with equal
numbers on something shared.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain._process.control import Place
from factorychain_agents.host import InstanceHost
from factorychain_agents.live_run import LiveRun
from factorychain_agents.process import pool
from factorychain_agents.process.child import Child, Exit
from factorychain_agents.process.instance_process import InstanceProcess
from factorychain_agents.process.process_executor import ProcessExecutor
from tests.delay import Delay
from tests.integration.agents.conftest import Chain, FakeEngine, serving
from tests.stepping import Stepping
from tests.waiting import until_true

DELAY_S = 0.1
ENDINGS = ("agent_completed", "agent_failed", "agent_cancelled")
MODULES = (
    "tests.integration.agents.asking_samples",
    "tests.integration.agents.talking_samples",
)


@pytest.fixture
async def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Chain]:
    """The emitter, the engine and every run process are far away; no process waits for a run."""
    delay = Delay(DELAY_S)
    monkeypatch.setattr(pool, "InstanceProcess", lambda *parts: _far(delay, *parts))
    changes = {
        "emitter_address": await delay.listen(tmp_path / "far-emitter", tmp_path / "emitter"),
        "engine_address": await delay.listen(tmp_path / "far-engine", tmp_path / "engine"),
        "idle_processes_min": 0,
        "idle_processes_max": 0,
        "cancel_grace_s": 5,
    }
    async with serving(tmp_path, *MODULES, isolation="process", **changes) as started:
        yield started
    await delay.stop()


def _far(delay: Delay, place: Place, child: Child, end: Any, *rest: Any) -> InstanceProcess:
    return InstanceProcess(place, cast("Child", FarChild(child, delay)), delay.away(end), *rest)


class FarChild:
    """A child of whose end one hears after everything that it has said."""

    def __init__(self, child: Child, delay: Delay) -> None:
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._child = child
        later = asyncio.get_running_loop().call_later
        child.exited.add_done_callback(
            lambda done: later(2 * delay.delay_s, self.exited.set_result, done.result())
        )

    def __getattr__(self, name: str) -> object:
        return getattr(self._child, name)


class Cancels:
    """Cancels runs, each at one of its awaits, wherever in the service that is."""

    def __init__(self) -> None:
        self.at: dict[str, int] = {}
        """By run."""
        self.awaits: Counter[str] = Counter()
        """How many each run has come to."""
        self._live: dict[str, LiveRun] = {}

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Step through everything that waits for a run's sake."""
        live = LiveRun.live

        @wraps(live)
        async def stepped(run: LiveRun, *arguments: Any) -> None:
            self._live[run.spec.run] = run
            await self._step(run.spec.run, live(run, *arguments))

        monkeypatch.setattr(LiveRun, "live", stepped)
        self._wrap(monkeypatch, ProcessExecutor, "start_run", lambda spec, _: spec.run)
        for name in ("emit", "say", "history"):
            self._wrap(monkeypatch, InstanceHost, name, lambda *_: "")

    def _wrap(
        self,
        monkeypatch: pytest.MonkeyPatch,
        owner: type,
        name: str,
        run_of: Callable[..., str],
    ) -> None:
        original = getattr(owner, name)

        async def stepped(this: Any, *arguments: Any, **more: Any) -> Any:
            run = run_of(*arguments) or self._run_of_host(this)
            return await self._step(run, original(this, *arguments, **more))

        monkeypatch.setattr(owner, name, stepped)

    def _run_of_host(self, host: InstanceHost) -> str:
        return next(run for run, live in self._live.items() if live._host is host)

    async def _step(self, run: str, work: Awaitable[Any]) -> Any:
        return await Stepping(work, lambda: self._suspended(run))

    def _suspended(self, run: str) -> None:
        if self.awaits[run] == self.at.get(run):
            self._live[run].cancel("USER")
        self.awaits[run] += 1


def user_of(name: str, number: int) -> tuple[Principal, str]:
    """A user and the only text that they may see."""
    return Principal("acme", f"{name}-{number}"), f"canary-{name}-{number}-"


def token(chain: Chain, agent: str, name: str, number: int) -> tuple[UserExecutionContext, str]:
    """A run of a user who has a history."""
    principal, canary = user_of(name, number)
    ctx = chain.token(agent, principal=principal, thread=f"t-{name}-{number}")
    chain.engine.history[ctx.thread] = [f"{canary} {each}" for each in range(1, 4)]
    return ctx, canary


def checked(chain: Chain, run: str, canary: str) -> Any:
    """The run's last event; every event is its own user's."""
    events = chain.log.events(run)
    text = " ".join(str(each) for each in events)
    assert "canary-" not in text.replace(canary, ""), text
    kinds = chain.log.kinds(run)
    assert [each for each in kinds if each in ENDINGS] == kinds[-1:]
    return events[-1]


async def test_a_cancel_at_any_await_leaves_nothing_for_the_next_run(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancels = Cancels()
    cancels.install(monkeypatch)
    whole, canary = token(chain, "talks", "whole", 0)
    await chain.run(whole, canary)
    assert chain.log.kinds(whole.run)[-1] == "agent_completed"
    count = cancels.awaits[whole.run]
    assert count >= 4
    some = [_cancelled_beside_another(chain, cancels, at) for at in range(count)]
    reached = await asyncio.gather(*some)
    # The last may come before or after the ending is durable, and with it one await more or less.
    assert all(reached[:-1])
    await until_true(lambda: chain.agents.processes.running == 0)
    await until_true(lambda: chain.agents.processes.settled)


async def _cancelled_beside_another(chain: Chain, cancels: Cancels, at: int) -> bool:
    """One that is cancelled, one beside it, and one after it; whether it was cancelled."""
    ada, ada_canary = token(chain, "talks", "ada", at)
    bob, bob_canary = token(chain, "talks", "bob", at)
    cyd, cyd_canary = token(chain, "talks", "cyd", at)
    cancels.at[ada.run] = at
    beside = asyncio.create_task(chain.run(bob, bob_canary))
    await chain.run(ada, ada_canary)
    await chain.run(cyd, cyd_canary)
    await beside
    checked(chain, ada.run, ada_canary)
    for ctx, canary in ((bob, bob_canary), (cyd, cyd_canary)):
        ending = checked(chain, ctx.run, canary).agent_completed
        assert orjson.loads(ending.output_json) == [f"{canary} {each}" for each in range(1, 4)]
    return cancels.awaits[ada.run] > at


async def test_an_answer_that_nobody_waits_for_any_more_is_not_the_next_ones(
    chain: Chain,
) -> None:
    ctx, canary = token(chain, "asks", "ada", 0)
    found = orjson.loads((await chain.run(ctx, canary))[-1].agent_completed.output_json)
    assert found["wrong"] == []
    assert found["awaits"] >= 1


@pytest.fixture
def last_asked_first_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine answers in another order than it is asked."""
    answer = FakeEngine.get_history

    async def answered(engine: FakeEngine, request: Any, context: object) -> Any:
        found = await answer(engine, request, context)
        await asyncio.sleep(0.2 / len(engine.tokens))
        return found

    monkeypatch.setattr(FakeEngine, "get_history", answered)


async def test_questions_with_equal_numbers_get_the_answers_of_their_own_user(
    last_asked_first_answered: None, chain: Chain
) -> None:
    runs = [token(chain, "asks-much", "ada", number) for number in range(8)]
    await asyncio.gather(*(chain.run(ctx, canary) for ctx, canary in runs))
    for ctx, canary in runs:
        found = orjson.loads(checked(chain, ctx.run, canary).agent_completed.output_json)
        expected = [f"{canary} {each}" for each in range(1, 4)]
        assert found == [expected[-2:], expected[-1:], expected]
