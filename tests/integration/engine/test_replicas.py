"""Several replicas of the agents layer: the engine chooses, and finds every run where it was accepted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from factorychain.errors import Capacity, ChainDegraded
from factorychain_engine import server as server_module
from factorychain_engine.agents import replicas as replicas_module
from factorychain_engine.lifeline import EndReason
from factorychain_engine.retry import SPREAD
from tests.engine_harness import BOB, Chain, Engine
from tests.engine_peers import Agents
from tests.token_samples import ADA
from tests.waiting import until_not, until_true


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas_module, "LOOK_S", 0.05)


@pytest_asyncio.fixture
async def replicas(chain: Chain) -> AsyncIterator[list[Agents]]:
    """Three, the first of them the chain's own."""
    others = [Agents(chain.log, chain.verifier, f"boot-{each}") for each in ("two", "three")]
    for each in others:
        await each.start()
    yield [chain.agents, *others]
    for each in others:
        await each.stop()


async def _engine(chain: Chain, replicas: list[Agents]) -> Engine:
    target = "ipv4:" + ",".join(each.address for each in replicas)
    return await chain.engine(agents_address=target, user_max_runs=50)


async def test_the_loaded_one_is_asked_when_another_is_stopping_and_the_third_is_full(
    chain: Chain, replicas: list[Agents]
) -> None:
    loaded, stopping, full = replicas
    engine = await _engine(chain, [loaded])
    for _ in range(3):
        await engine.start_run()
    await engine.stop()
    loaded.capacity, stopping.accepting, full.capacity = 5, False, 0
    full.room_in_ms = 7000

    engine = await _engine(chain, replicas)
    runs = [await engine.start_run(BOB) for _ in range(2)]
    assert [len(each.runs) for each in replicas] == [5, 0, 0]
    await until_true(lambda: engine.server.replicas.order().room_in_s == 2.0)  # the sooner of both
    with pytest.raises(Capacity) as refused:
        await engine.start_run(BOB)
    assert refused.value.retry_after_s is not None
    assert 2.0 <= refused.value.retry_after_s <= 2.0 * (1 + SPREAD)
    assert len(await engine.active(BOB)) == 2
    await loaded.end(runs[0].run)
    await until_true(lambda: engine.server.replicas.room() == 1)
    await engine.start_run(BOB)
    full.capacity = 10
    await until_true(lambda: (engine.server.replicas.room() or 0) == 10)
    await engine.start_run(BOB)
    assert [len(each.runs) for each in replicas] == [6, 0, 1]


async def test_runs_are_spread_by_what_each_has_to_do(chain: Chain, replicas: list[Agents]) -> None:
    engine = await _engine(chain, replicas)
    await until_true(lambda: engine.server.replicas.room() == 3000)
    for each, capacity in zip(replicas, (4, 4, 40), strict=True):
        each.capacity = capacity
    await until_true(lambda: engine.server.replicas.room() == 48)
    await asyncio.gather(*(engine.start_run() for _ in range(24)))
    assert sum(len(each.runs) for each in replicas) == 24
    assert len(replicas[2].runs) > 12


async def test_a_run_is_found_where_it_was_accepted(chain: Chain, replicas: list[Agents]) -> None:
    engine = await _engine(chain, replicas)
    for _ in range(4):
        run = (await engine.start_run()).run
        ended = await engine.cancel(run)
        assert ended.run == run
    await until_not(engine.active)


async def test_a_replica_that_begins_to_stop_gets_no_run_and_keeps_those_that_it_has(
    chain: Chain, replicas: list[Agents]
) -> None:
    engine = await _engine(chain, replicas[:2])
    await until_true(lambda: engine.server.replicas.room() is not None)
    before = (await engine.start_run()).run
    keeper = next(each for each in replicas if before in each.runs)
    keeper.accepting = False  # the engine does not know yet: it is told by the refusal
    for _ in range(3):
        await engine.start_run()
    assert list(keeper.runs) == [before]
    await keeper.end(before)
    await until_true(lambda: not engine.looks_after(before))


async def test_who_is_refused_by_all_is_told_of_the_first_room_and_not_all_the_same(
    chain: Chain, replicas: list[Agents], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await _engine(chain, replicas)
    await until_true(lambda: engine.server.replicas.room() == 3000)
    for each, room_in_s in zip(replicas, (8.0, 4.0, 6.0), strict=True):
        each.refuse_with = Capacity(retry_after_s=room_in_s)
    monkeypatch.setattr(replicas_module, "spread", lambda wait_s: wait_s + 0.25)
    with pytest.raises(Capacity) as refused:
        await engine.start_run()
    assert refused.value.retry_after_s == 4.25


async def test_a_start_whose_answer_was_lost_is_looked_for_at_every_replica(
    chain: Chain, replicas: list[Agents]
) -> None:
    engine = await _engine(chain, replicas)
    replicas[0].capacity = 0  # so that it is not the first who has it
    run = (await engine.start_run()).run
    holder = next(each for each in replicas if run in each.runs)
    entry = (await engine.server.users.read(ADA)).record.active[0]
    context = engine.server.tokens.run(ADA, entry)
    await engine.server.peers.cancel(context, "", EndReason.USER.value, "")
    assert holder.runs[run].cancel_reasons == ["USER"]
    await until_not(engine.active)


async def test_with_all_of_them_stopping_the_layer_is_away(
    chain: Chain, replicas: list[Agents]
) -> None:
    engine = await _engine(chain, replicas)
    for each in replicas:
        each.accepting = False
    with pytest.raises(ChainDegraded):
        await engine.start_run()
    assert await engine.active() == []


class Name:
    """A name of the layer, and whom it stands for now."""

    def __init__(self, *agents: Agents) -> None:
        self.addresses = tuple(each.address for each in agents)
        self.looked_up = 0

    async def resolve(self, _target: str) -> tuple[str, ...]:
        self.looked_up += 1
        return self.addresses

    async def now(self, *agents: Agents) -> None:
        """It stands for these, and was looked up again since, more than once."""
        self.addresses = tuple(each.address for each in agents)
        goal = self.looked_up + 3
        await until_true(lambda: self.looked_up >= goal)


async def test_a_replica_that_is_added_gets_runs_and_one_that_is_removed_keeps_its_own(
    chain: Chain, replicas: list[Agents], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = replicas[:2]
    name = Name(old)
    monkeypatch.setattr(server_module, "resolve", name.resolve)
    engine = await chain.engine(agents_address="agents:7102", user_max_runs=50)
    before = (await engine.start_run()).run
    assert list(old.runs) == [before]

    old.capacity = 1  # it is full: only somebody else can take another run
    await name.now(old, new)
    await until_true(lambda: engine.server.replicas.room() == new.capacity)
    await engine.start_run()
    assert (len(old.runs), len(new.runs)) == (1, 1)

    old.capacity = 1000
    await name.now(new)
    for _ in range(3):
        await engine.start_run()
    assert (list(old.runs), len(new.runs)) == ([before], 4)
    channel = engine.server.replicas.find(old.address).channel
    assert channel.connected
    await old.end(before)
    await until_true(lambda: not engine.looks_after(before))
    await until_true(lambda: not channel.connected)
