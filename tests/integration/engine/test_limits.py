"""The limits of a start are those in force when its place is taken, whichever engine takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.errors import UserEngineLimit
from tests.engine_harness import Chain, Engine
from tests.token_samples import ADA
from tests.waiting import until_true

START = pb.StartRunRequest(input_json='{"text":"Why?"}')


def _write(path: Path, active_runs: int) -> None:
    path.write_text(
        f"[plans.pro]\nactive_runs = {active_runs}\nlifetime_s = 100\nrun_tokens = 5000\n"
    )


async def _start(engine: Engine, plan: str) -> str:
    answer = await engine.stub.StartRun(START, metadata=engine.as_user(ADA, tier=plan))
    run: str = answer.run
    return run


async def _until_active_runs(engine: Engine, limit: int) -> None:
    await until_true(lambda: engine.server.limits.of(ADA, "pro").active_runs == limit)


async def _usage(engine: Engine, plan: str) -> Any:
    return await engine.stub.GetUsage(pb.GetUsageRequest(), metadata=engine.as_user(ADA, tier=plan))


async def test_a_plan_holds_at_every_engine_and_a_change_of_it_without_a_restart(
    chain: Chain, tmp_path: Path
) -> None:
    path = tmp_path / "limits.toml"
    _write(path, 3)
    engines = [await chain.engine(limits_file=path, plan_claim="tier") for _ in range(2)]
    runs = [await _start(engines[each % 2], "pro") for each in range(3)]
    for engine in engines:
        with pytest.raises(UserEngineLimit, match="3 active runs"):
            await _start(engine, "pro")
        with pytest.raises(UserEngineLimit, match="2 active runs"):
            await _start(engine, "unheard of")  # the settings' own limit
    granted = chain.agents.runs[runs[0]].ctx
    assert granted.limits["run_tokens"] == 5000
    assert granted.limits["active_runs"] == 3
    entry = (await engines[0].server.users.read(ADA)).record.active[0]
    assert entry.deadline_s - entry.admitted_at_s == pytest.approx(100)

    _write(path, 1)
    for engine in engines:
        await _until_active_runs(engine, 1)
    usage = await _usage(engines[1], "pro")
    assert (usage.plan, usage.max_active_runs, usage.active_runs) == ("pro", 1, 3)
    assert (usage.lifetime_s, usage.run_max_tokens, usage.user_max_tokens) == (100, 5000, 0)
    assert await engines[0].active() == runs  # nothing was ended
    for run in runs[:2]:
        await chain.agents.end(run)
        await engines[0].until_active(runs[runs.index(run) + 1 :])
        with pytest.raises(UserEngineLimit, match="1 active run,"):
            await _start(engines[1], "pro")
    await chain.agents.end(runs[2])
    await engines[0].until_active([])
    assert await _start(engines[1], "pro")


async def test_a_run_that_is_adopted_keeps_its_plan(chain: Chain, tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    _write(path, 3)
    one = await chain.engine(limits_file=path, plan_claim="tier")
    run = await _start(one, "pro")
    other = await chain.engine(limits_file=path, plan_claim="tier")
    await one.stop()
    await until_true(lambda: other.looks_after(run))
    adopted = other.server.runs.find(ADA, run)
    assert adopted is not None
    assert adopted.context.limits["run_tokens"] == 5000


async def test_one_that_waits_under_a_plan_with_less_holds_up_none_of_a_better_one(
    chain: Chain, tmp_path: Path
) -> None:
    path = tmp_path / "limits.toml"
    path.write_text("[plans.free]\nactive_runs = 1\n[plans.pro]\nactive_runs = 2\n")
    engine = await chain.engine(limits_file=path, plan_claim="tier", cleanup_interval_s=300)

    async def enqueue(thread: str, plan: str) -> str:
        request = pb.StartRunRequest(
            input_json='{"text":"Why?"}', thread=thread, on_busy=pb.ON_BUSY_ENQUEUE
        )
        user = engine.as_user(ADA, tier=plan)
        run: str = (await engine.stub.StartRun(request, metadata=user)).run
        return run

    first, waits = await enqueue("a", "free"), await enqueue("b", "free")
    better = await enqueue("c", "pro")
    await until_true(lambda: better in chain.agents.runs)
    assert await engine.waiting() == [waits]
    await chain.agents.end(first)
    await chain.agents.end(better)
    await until_true(lambda: waits in chain.agents.runs)
