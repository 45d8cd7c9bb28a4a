"""When agents are full, what becomes free is given fair by tenant, then by user, over several engines."""

from __future__ import annotations

import asyncio

import pytest

from factorychain._core.ids import Principal
from factorychain.engine.v1 import engine_pb2 as pb
from factorychain.errors import Capacity
from factorychain_engine.agents import replicas
from factorychain_engine.queue import turns
from tests.engine_harness import BOB, Chain, Engine
from tests.engine_peers import cancelled
from tests.token_samples import ADA
from tests.waiting import until_true

SMALL = Principal("small", "only")


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LOOK_S", 0.03)
    monkeypatch.setattr(replicas, "LOOK_S", 0.05)


async def _wait(engine: Engine, principal: Principal) -> str:
    started = await engine.start_run(principal, on_busy=pb.ON_BUSY_ENQUEUE)
    run: str = started.run
    return run


async def _until_in_line(engine: Engine, principals: set[Principal]) -> None:
    await until_true(lambda: {each.principal for each in engine.server.turns.line} == principals)


async def _ends_and_next(chain: Chain, run: str) -> str:
    """End the only run that there is room for; the one that begins then."""
    begun = len(chain.agents.executed)
    await chain.agents.end(run)
    await until_true(lambda: len(chain.agents.executed) > begun)
    return chain.agents.executed[begun]


async def _full(chain: Chain, engine: Engine) -> str:
    """Agents with room for one run, which they have."""
    chain.agents.capacity = 1
    await until_true(lambda: engine.server.replicas.room() == 1)
    run: str = (await engine.start_run(ADA)).run
    return run


@pytest.mark.alone  # an engine that is slow is passed over
async def test_a_late_tenant_has_its_turn_within_a_round_whichever_engine_looks_after_it(
    chain: Chain,
) -> None:
    one, other = await chain.engine(), await chain.engine()
    current = await _full(chain, one)
    big = [Principal("big", f"u{each}") for each in range(6)]
    waits = {await _wait(one, each): each for each in big for _ in range(3)}
    await _until_in_line(other if other.server.turns.line else one, set(big))
    current = await _ends_and_next(chain, current)
    assert waits[current].tenant == "big"
    waits[await _wait(other, SMALL)] = SMALL
    for each in (one, other):
        await _until_in_line(each, {SMALL, *big})
    order = []
    for _ in range(8):
        current = await _ends_and_next(chain, current)
        order.append(waits[current])
    assert SMALL in order[:2]
    # Each of the big tenant's users before one of them has a second turn; the first had one already.
    assert len({*order, big[0]} - {SMALL}) == len(big)
    for run in set(waits) - set(chain.agents.executed):
        await one.cancel(run, waits[run])


async def test_who_comes_now_does_not_overtake_those_who_wait(chain: Chain) -> None:
    engine = await chain.engine()
    current = await _full(chain, engine)
    waiting = await _wait(engine, SMALL)
    await _until_in_line(engine, {SMALL})
    begun = len(chain.agents.executed)
    await chain.agents.end(current)
    while len(chain.agents.executed) == begun:
        with pytest.raises(Capacity) as refused:
            await engine.start_run(ADA)
        assert refused.value.retry_after_s
    assert chain.agents.executed[begun] == waiting
    await _until_in_line(engine, set())
    await chain.agents.end(waiting)
    await until_true(lambda: engine.server.replicas.room() == 1)
    await engine.start_run(ADA)


async def test_a_start_that_has_ended_another_run_waits_if_its_room_is_taken(chain: Chain) -> None:
    engine = await chain.engine()
    chain.agents.capacity = 2
    await until_true(lambda: engine.server.replicas.room() == 2)
    old: str = (await engine.start_run(thread="t")).run
    chain.agents.stubborn = True
    interrupting = asyncio.ensure_future(engine.start_run(thread="t", on_busy=pb.ON_BUSY_INTERRUPT))
    await until_true(lambda: chain.agents.runs[old].cancel_reasons)
    await engine.start_run(BOB)
    await _wait(engine, SMALL)
    await _until_in_line(engine, {SMALL})
    await chain.agents.end(old, cancelled("INTERRUPTED"))
    assert (await interrupting).position == 1


async def test_an_engine_that_takes_over_a_queue_keeps_its_users_place_in_the_line(
    chain: Chain,
) -> None:
    one, other = await chain.engine(), await chain.engine()
    await _full(chain, other)
    first, second = Principal("acme", "first"), Principal("acme", "second")
    await _wait(one, first)
    await _until_in_line(one, {first})
    await _wait(other, second)
    await _until_in_line(other, {first, second})
    before = {each.principal: each.ticket for each in other.server.turns.line}
    await one.stop()
    await until_true(
        lambda: {each.engine for each in other.server.turns.line} == {other.server.engine_id}
    )
    assert {each.principal: each.ticket for each in other.server.turns.line} == before
    assert [each.principal for each in other.server.turns.line] == [first, second]
