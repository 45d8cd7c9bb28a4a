"""Idle processes, made by a source that does as it is told."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import cast

import pytest

from factorychain._process.control import Place
from factorychain._process.wire import FromInstance, ToInstance, frame
from factorychain.errors import Capacity
from factorychain_agents.process import pool as pool_module
from factorychain_agents.process.child import Child, Exit
from factorychain_agents.process.demand import Demand
from factorychain_agents.process.directories import RunDirectories
from factorychain_agents.process.instance_process import InstanceProcess
from factorychain_agents.process.pool import Pool
from factorychain_agents.process.zygote_client import Births
from tests.waiting import until_true


class FakeChild:
    """A process that ends when it is killed."""

    def __init__(self, place: Place) -> None:
        self.pid = place.id
        self.place = place
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    def terminate(self) -> None:
        self.kill()

    def kill(self) -> None:
        if not self.exited.done():
            self.exited.set_result(Exit(None, signal.SIGKILL))


class World:
    """A pool and its source."""

    def __init__(
        self, directories: RunDirectories, least: int = 2, most: int = 8, half_life_s: float = 30.0
    ) -> None:
        self.directories = directories
        self.asked: list[Place] = []
        self.births: Births | None = None
        self.ends: dict[int, socket.socket] = {}
        self.children: dict[int, FakeChild] = {}
        numbers = itertools.count(1)
        demand = Demand(least, most, half_life_s=half_life_s)
        self.pool = Pool(self, "{}", directories, demand, lambda: next(numbers))

    def fork(self, places: Sequence[Place], confinement: str, births: Births) -> None:
        self.asked += places
        self.births = births

    def bear(self, *, ready: bool = True) -> int:
        """The next process that was asked for."""
        place = self.asked.pop(0)
        ours, its = socket.socketpair()
        self.ends[place.id] = its
        self.children[place.id] = FakeChild(place)
        assert self.births is not None
        self.births.born(place.id, cast("Child", self.children[place.id]), ours)
        if ready:
            its.sendall(frame(FromInstance.READY, b"[]"))
        return place.id

    async def with_idle(self, count: int) -> World:
        self.pool.refill()
        while self.asked:
            self.bear()
        await until_true(lambda: self.pool.idle == count)
        return self

    async def stop(self) -> None:
        await self.pool.stop()
        await self.directories.stop()
        for each in self.ends.values():
            each.close()


@pytest.fixture
async def directories(tmp_path: Path) -> RunDirectories:
    made = RunDirectories(tmp_path)
    await made.start()
    return made


@pytest.fixture
async def world(directories: RunDirectories) -> AsyncIterator[World]:
    made = World(directories)
    yield made
    await made.stop()


async def test_it_keeps_as_many_ready_as_are_wanted(world: World) -> None:
    world.pool.refill()
    world.pool.refill()
    assert len(world.asked) == 2
    assert world.pool.idle == 0
    await world.with_idle(2)
    world.pool.refill()
    assert world.asked == []


async def test_a_process_counts_as_idle_only_when_it_says_that_it_is_ready(world: World) -> None:
    world.pool.refill()
    number = world.bear(ready=False)
    world.bear()
    await until_true(lambda: world.pool.idle == 1)
    world.ends[number].sendall(frame(FromInstance.READY, b"[]"))
    await until_true(lambda: world.pool.idle == 2)


async def test_a_taken_one_is_replaced_and_nobody_gets_it_again(world: World) -> None:
    await world.with_idle(2)
    first, second = await world.pool.acquire(), await world.pool.acquire()
    assert first is not second
    await until_true(lambda: len(world.asked) == 2)
    await world.with_idle(2)
    assert first not in [await world.pool.acquire(), await world.pool.acquire()]


async def test_who_waits_gets_the_next_one_that_is_born_in_their_order(world: World) -> None:
    waiting = [asyncio.create_task(world.pool.acquire()) for _ in range(2)]
    await until_true(lambda: len(world.asked) >= 2)
    numbers = [world.bear(ready=False), world.bear(ready=False)]
    found = [await each for each in waiting]
    assert [each.place.id for each in found] == numbers


async def test_who_gives_up_waiting_leaves_no_process_behind(world: World) -> None:
    waiting = asyncio.create_task(world.pool.acquire())
    await until_true(lambda: bool(world.asked))
    number = world.bear(ready=False)
    waiting.cancel()  # at the very moment at which there is one
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until_true(world.children[number].exited.done)


async def test_who_waits_too_long_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_WAIT_S", 0.01)
    with pytest.raises(Capacity):
        await world.pool.acquire()


async def test_an_idle_one_that_dies_is_replaced_and_its_directory_goes(world: World) -> None:
    await world.with_idle(2)
    child = next(iter(world.children.values()))
    place = child.place
    place.path.mkdir()
    child.kill()
    await until_true(lambda: world.pool.idle == 1 and not place.path.exists())
    world.pool.refill()
    assert len(world.asked) == 1


async def test_what_cannot_be_made_is_tried_again_but_not_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_FIRST_DELAY_S", 0.02)
    world.pool.refill()
    assert world.births is not None
    for place in world.asked:
        world.births.stillborn(place.id, "no memory")
    world.asked.clear()
    world.pool.refill()
    assert world.asked == []
    await until_true(lambda: len(world.asked) == 2)


async def test_one_that_ends_before_it_is_ready_is_a_failure_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_FIRST_DELAY_S", 0.02)
    world.pool.refill()
    world.children[world.bear(ready=False)].kill()
    await asyncio.sleep(0)
    world.pool.refill()
    assert len(world.asked) == 1
    await until_true(lambda: len(world.asked) == 2)


async def test_many_are_asked_for_in_groups(directories: RunDirectories) -> None:
    world = World(directories, least=0, most=0)
    waiting = [asyncio.create_task(world.pool.acquire()) for _ in range(100)]
    await until_true(lambda: bool(world.asked))
    most = 0
    while not all(each.done() for each in waiting):
        most = max(most, len(world.asked))
        world.bear(ready=False)
        await asyncio.sleep(0)
    assert most <= 32
    assert len({(await each).place.id for each in waiting}) == 100
    await world.stop()


async def test_too_many_idle_ones_are_ended(directories: RunDirectories) -> None:
    world = World(directories, least=1, most=8, half_life_s=0.1)
    waiting = [asyncio.create_task(world.pool.acquire()) for _ in range(4)]
    await until_true(lambda: len(world.asked) >= 4)
    while world.asked:
        world.bear()
    taken: list[InstanceProcess] = [await each for each in waiting]

    def one_is_left() -> bool:
        world.pool.refill()  # as it is from time to time
        return world.pool.idle == 1

    await until_true(one_is_left)
    assert not any(world.children[each.place.id].exited.done() for each in taken)
    await world.stop()


async def test_stopping_ends_them_all(world: World) -> None:
    await world.with_idle(2)
    taken = await world.pool.acquire()
    await world.pool.stop()
    assert all(each.exited.done() for each in world.children.values())
    assert len(world.pool) == 0
    taken.send(ToInstance.CANCEL)
    with pytest.raises(Capacity):
        await world.pool.acquire()
