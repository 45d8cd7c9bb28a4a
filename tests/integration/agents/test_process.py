"""Runs in processes of their own, through the whole agents service.

Starting it costs a second, so the tests share one; what depends on settings, or on its end, has its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
import pytest_asyncio

from factorychain._core.ids import Principal
from factorychain.agents.v1 import agents_pb2 as pb
from factorychain.types.v1.event_pb2 import Event
from factorychain_agents.process import weights
from tests.integration.agents.conftest import Chain, metadata, serving
from tests.waiting import until_true

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODULE = "tests.integration.agents.process_samples"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def serves(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chain]:
    folder = tmp_path_factory.mktemp("processes")
    more = {"run_events_burst": 5000, "agent_silence_max_s": 120}  # a busy machine is not silence
    async with serving(folder, MODULE, isolation="process", **more) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def chain(serves: Chain) -> Chain:
    """The shared one, with no run in it."""
    await nothing_runs(serves)
    return serves


class Printed(NamedTuple):
    """What a run printed."""

    run: str
    stream: str
    text: str


@pytest.fixture
def output(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> list[Printed]:
    """Everything that is shown of what runs print, by line."""
    shown: list[Printed] = []

    def show(run: str, stream: str, text: str) -> None:
        shown.extend(Printed(run, stream, line) for line in text.split("\n"))

    monkeypatch.setattr(chain.agents.processes, "show", show)
    return shown


def kind_of(event: Event) -> str:
    return event.WhichOneof("event") or ""


def output_of(events: list[Event]) -> Any:
    return orjson.loads(events[-1].agent_completed.output_json)


async def begun(chain: Chain, agent: str, text: str = "hi", **changes: Any) -> tuple[Any, Any]:
    """A run, and the stream of its life."""
    ctx = chain.token(agent, **changes)
    call = chain.execute(ctx, text)
    await anext(aiter(call))
    return ctx, call


async def ended(call: Any) -> None:
    """Wait for the end of a run."""
    kinds = [each.WhichOneof("life") async for each in call]
    assert kinds[-1] == "finished"


async def said(chain: Chain, run: str, kind: str) -> None:
    await chain.log.wait_for(lambda: kind in chain.log.kinds(run))


async def cancel(chain: Chain, ctx: Any, reason: str) -> None:
    await chain.stub.Cancel(pb.CancelRequest(reason=reason), metadata=metadata(ctx))


async def nothing_runs(chain: Chain) -> None:
    await until_true(lambda: chain.agents.processes.running == 0)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> set[int]:
    """Processes whose parent is this one."""
    return {pid for pid, parent, _ in _processes() if parent == os.getpid()}


def zombies() -> list[int]:
    return [pid for pid, parent, state in _processes() if parent == os.getpid() and state == "Z"]


def _processes() -> list[tuple[int, int, str]]:
    found = []
    for each in Path("/proc").iterdir():
        try:
            fields = (each / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # no process, or one that ended meanwhile
            continue
        if each.name.isdigit():
            found.append((int(each.name), int(fields[1]), fields[0]))
    return found


async def test_a_run_says_the_five_events_from_its_process(chain: Chain) -> None:
    ctx = chain.token("five")
    events = await chain.run(ctx, "a word")
    assert [kind_of(each) for each in events] == [
        "agent_started",
        "agent_thinking",
        "tool_executing",
        "tool_completed",
        "message_delta",
        "agent_completed",
    ]
    assert chain.log.run_seqs(ctx.run) == [1, 2, 3, 4, 5, 6]
    assert orjson.loads(events[3].tool_completed.result_json) == {"seen": "a word", "by": "ada"}
    assert output_of(events) == "a word"
    assert events[-1].agent_completed.message == events[4].message_delta.message


async def test_each_run_has_a_fresh_process_and_what_is_shared_was_made_before_it(
    chain: Chain,
) -> None:
    users = ("ada", "bob", "cyd")
    runs = [chain.token("where", principal=Principal("acme", user)) for user in users]
    found = [output_of(await chain.run(ctx)) for ctx in runs]
    assert len({each["pid"] for each in found} | {os.getpid()}) == 4
    assert chain.agents.processes.zygote is not None
    assert {each["maker"] for each in found} == {chain.agents.processes.zygote.pid}
    assert [each["before"] for each in found] == [[], [], []]
    assert not any(each["grpc"] for each in found)
    assert len({each["folder"] for each in found}) == 3


async def test_an_agent_chooses_for_itself_where_it_runs(chain: Chain) -> None:
    assert output_of(await chain.run(chain.token("trusted"))) == os.getpid()
    assert chain.agents.tasks.running == 0


async def test_what_is_shared_is_closed_with_the_service(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with serving(tmp_path, MODULE, isolation="process") as chain:
        await chain.run(chain.token("five"))
        assert "closed what is shared" not in capfd.readouterr().out
    assert "closed what is shared" in capfd.readouterr().out


async def test_the_researcher_reads_what_the_zygote_has_indexed(chain: Chain) -> None:
    events = await chain.run(chain.token("researcher"), "How does a with statement work?")
    assert kind_of(events[-1]) == "agent_completed", events[-1]
    assert "with" in output_of(events)
    assert "tool_completed" in [kind_of(each) for each in events]
    assert all(each.tool_completed.ok for each in events if kind_of(each) == "tool_completed")


async def test_a_process_has_the_environment_that_is_allowed_and_a_folder_of_its_own(
    chain: Chain,
) -> None:
    found = output_of(await chain.run(chain.token("where")))
    assert not [name for name in found["environment"] if name.startswith("FACTORYCHAIN_")]
    assert "PYTHONPATH" not in found["environment"]
    await until_true(lambda: not Path(found["folder"]).exists())


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("USER", "agent_cancelled"), ("DEADLINE", "agent_failed"), ("UNRESPONSIVE", "agent_failed")],
)
async def test_a_cancel_reaches_the_code_and_closes_its_calls(
    chain: Chain, output: list[Printed], reason: str, kind: str
) -> None:
    ctx, call = await begun(chain, "waits")
    await said(chain, ctx.run, "tool_executing")
    await cancel(chain, ctx, reason)
    await ended(call)
    events = chain.log.events(ctx.run)
    assert [kind_of(each) for each in events[-2:]] == ["tool_completed", kind]
    assert events[-2].tool_completed.error.reason == "CANCELLED"
    assert getattr(events[-1], kind).reason == reason
    assert Printed(ctx.run, "stdout", "told to stop") in output


async def test_an_agent_that_ignores_cancel_and_signals_is_killed_after_the_grace(
    chain: Chain,
) -> None:
    ctx, call = await begun(chain, "stubborn")
    await said(chain, ctx.run, "agent_thinking")
    await cancel(chain, ctx, "USER")
    await ended(call)
    assert chain.log.kinds(ctx.run)[-1] == "agent_cancelled"
    await nothing_runs(chain)


async def test_a_loop_that_is_held_up_is_interrupted_by_a_cancel(
    chain: Chain, output: list[Printed], monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx, call = await begun(chain, "spins")
    await said(chain, ctx.run, "agent_thinking")
    await cancel(chain, ctx, "USER")
    await ended(call)
    assert chain.log.kinds(ctx.run)[-1] == "agent_cancelled"
    await nothing_runs(chain)


def gives_way(pid: int) -> bool:
    """As far as the service may make it: in the group of those, or by the least niceness."""
    if "/factorychain-busy-" in Path(f"/proc/{pid}/cgroup").read_text():
        return True
    return os.getpriority(os.PRIO_PROCESS, pid) == 19


async def test_a_run_that_keeps_a_processor_busy_gives_way_to_one_that_waits(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However little of a processor is left for it here.
    monkeypatch.setattr(weights, "_BUSY", 0.005)
    monkeypatch.setattr(weights, "_CALM", 0.001)
    running = chain.agents.processes
    calm, waiting = await begun(chain, "waits")
    await until_true(lambda: running.running == 1)
    (waits,) = running.processes
    busy, spinning = await begun(chain, "spins")
    await until_true(lambda: running.running == 2)
    (spins,) = set(running.processes) - {waits}
    await until_true(lambda: gives_way(spins))
    assert not gives_way(waits)
    for ctx, call in ((calm, waiting), (busy, spinning)):
        await cancel(chain, ctx, "USER")
        await ended(call)


async def test_a_run_ends_at_its_deadline(chain: Chain) -> None:
    events = await chain.run(chain.token("stubborn", deadline_s=time.time() + 0.5))
    assert events[-1].agent_failed.reason == "DEADLINE"
    await nothing_runs(chain)


@pytest.mark.parametrize("text", ["", "deaf"])
async def test_too_much_processor_time_ends_a_run_with_that_reason(
    chain: Chain, output: list[Printed], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(weights, "_BUSY", 100)  # it has to get at that time
    ctx = chain.token("spins")
    events = await chain.run(ctx, text)
    assert events[-1].agent_failed.reason == "CPU_LIMIT"
    assert "processor time" in events[-1].agent_failed.message
    if not text:
        assert Printed(ctx.run, "stdout", "interrupted") in output


async def test_too_much_memory_ends_a_run_with_that_reason(chain: Chain) -> None:
    events = await chain.run(chain.token("eats"))
    assert events[-1].agent_failed.reason == "MEMORY_LIMIT"
    assert "memory" in events[-1].agent_failed.message


@pytest.mark.parametrize("how", ["segv", "exit", "close", "kill"])
async def test_a_process_that_ends_before_its_run_is_a_crash(
    chain: Chain, output: list[Printed], how: str
) -> None:
    ctx = chain.token("dies")
    events = await chain.run(ctx, how)
    assert [kind_of(each) for each in events] == [
        "agent_started",
        "agent_thinking",
        "agent_failed",
    ]
    assert events[-1].agent_failed.reason == "CRASHED"
    await nothing_runs(chain)
    if how == "segv":
        assert Printed(ctx.run, "stderr", "Fatal Python error: Segmentation fault") in output


async def test_an_agents_own_failure_keeps_its_reason(chain: Chain) -> None:
    events = await chain.run(chain.token("dies"), "error")
    assert events[-1].agent_failed.reason == "OWN_REASON"
    assert events[-1].agent_failed.message == "as it should"


async def test_a_loop_that_gives_no_sign_of_life_ends_its_run(tmp_path: Path) -> None:
    async with serving(tmp_path, MODULE, isolation="process", agent_silence_max_s=1) as chain:
        events = await chain.run(chain.token("sleeps"))
        assert events[-1].agent_failed.reason == "UNRESPONSIVE"
        await nothing_runs(chain)


async def test_a_burst_arrives_complete_and_in_order(chain: Chain) -> None:
    ctx = chain.token("bursts")
    events = await chain.run(ctx, "3000")
    thoughts = [each.agent_thinking.text for each in events if kind_of(each) == "agent_thinking"]
    assert thoughts == [f"step {n} of what the agent is about to do next" for n in range(3000)]
    assert chain.log.run_seqs(ctx.run) == list(range(1, 3003))


async def test_history_is_asked_for_by_the_service_with_the_runs_own_token(chain: Chain) -> None:
    ctx = chain.token("remembers")
    chain.engine.history[ctx.thread] = ["one", "two"]
    assert output_of(await chain.run(ctx)) == ["one", "two"]
    assert chain.engine.tokens[-1].run == ctx.run


async def test_what_a_run_prints_is_shown_with_its_id(chain: Chain, output: list[Printed]) -> None:
    ctx = chain.token("prints")
    await chain.run(ctx, "aloud")
    await nothing_runs(chain)
    assert Printed(ctx.run, "stdout", "printed aloud") in output
    assert Printed(ctx.run, "stderr", "logged aloud") in output
    assert Printed(ctx.run, "stderr", "no end of the line") in output
    assert Printed(ctx.run, "stderr", "written past Python") in output


async def test_a_folder_goes_whatever_is_in_it(chain: Chain) -> None:
    folder = Path(output_of(await chain.run(chain.token("writes"))))
    await until_true(lambda: not folder.exists())


async def test_dependencies_of_a_run_are_closed_in_its_process(
    chain: Chain, output: list[Printed]
) -> None:
    ctx = chain.token("five")
    await chain.run(ctx)
    assert Printed(ctx.run, "stdout", f"closed what {ctx.run} used") in output


async def test_runs_go_on_when_the_zygote_dies_and_another_one_takes_its_place(
    chain: Chain,
) -> None:
    ctx, call = await begun(chain, "waits")
    await said(chain, ctx.run, "tool_executing")
    zygote = chain.agents.processes.zygote
    assert zygote is not None
    first = zygote.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until_true(lambda: zygote.pid != first and zygote.there)
    runs = [chain.token("five") for _ in range(8)]
    for events in await asyncio.gather(*(chain.run(each) for each in runs)):
        assert kind_of(events[-1]) == "agent_completed"
    assert chain.log.kinds(ctx.run)[-1] == "tool_executing"
    await cancel(chain, ctx, "USER")
    await ended(call)
    assert chain.log.kinds(ctx.run)[-1] == "agent_cancelled"


async def test_nothing_is_left_of_runs_that_ended(chain: Chain) -> None:
    await chain.run(chain.token("five"))
    await nothing_runs(chain)
    before = descriptors()
    runs = [chain.token(agent) for agent in ("five", "dies", "prints", "waits") * 5]
    calls = [chain.execute(ctx) for ctx in runs]
    for ctx, call in zip(runs, calls, strict=True):
        await anext(aiter(call))
        if ctx.agent == "waits":
            await said(chain, ctx.run, "tool_executing")
            await cancel(chain, ctx, "USER")
    await asyncio.gather(*(ended(each) for each in calls))
    await nothing_runs(chain)
    processes = chain.agents.processes
    await until_true(lambda: processes.settled)
    # Two for each process that waits for a run, after a burst more of them than before.
    assert descriptors() - before <= 2 * processes.idle
    assert zombies() == []


async def test_stopping_ends_what_runs_and_leaves_nothing(tmp_path: Path, serves: Chain) -> None:
    await until_true(lambda: serves.agents.processes.settled, 30)
    before = children()
    async with serving(tmp_path, MODULE, isolation="process") as chain:
        ctx, call = await begun(chain, "stubborn")
        await said(chain, ctx.run, "agent_thinking")
        root = chain.agents.processes.directories.own.parent
        assert root.exists()
        call.cancel()
    assert chain.log.events(ctx.run)[-1].agent_failed.reason == "AGENT_LOST"
    assert not root.exists()
    # The shared service's are fewer by and by.
    assert children() <= before


async def test_an_agent_that_cannot_be_forked_gets_a_process_that_is_started_for_each_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    modules = (MODULE, "tests.integration.agents.unforkable_samples")
    async with serving(tmp_path, *modules, isolation="process", idle_processes_min=1) as chain:
        assert "the agent cannot be forked" in capsys.readouterr().out
        runs = [chain.token("threaded"), chain.token("threaded")]
        found = [output_of(await chain.run(ctx)) for ctx in runs]
        assert found[0]["pid"] != found[1]["pid"]
        assert all("of the module" in each["threads"] for each in found)
        assert not any(each["home"] for each in found)
        events = await chain.run(chain.token("threaded"), "eat")
        assert events[-1].agent_failed.reason == "MEMORY_LIMIT"
        assert kind_of((await chain.run(chain.token("five")))[-1]) == "agent_completed"
        await nothing_runs(chain)
    assert zombies() == []


@pytest.mark.parametrize("agent", ["stubborn", "spins", "sleeps"])
async def test_runs_and_zygote_end_with_a_service_that_is_killed(agent: str) -> None:
    service = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.agents.lone_service", agent),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert service.stdout is not None
    pids = [int(each) for each in (await service.stdout.readline()).split()]
    assert len(pids) == 2
    service.kill()
    await service.wait()
    await until_true(
        lambda: not [each for each in _processes() if each[0] in pids and each[2] != "Z"]
    )
    _reap(pids)


def _reap(pids: list[int]) -> None:
    """Orphans may have come to this process, which has served runs itself."""
    for each in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(each, 0)
