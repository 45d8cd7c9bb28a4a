"""What instances ask for, and what hostile ones send instead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from factorychain._process.asked import Asked, pack_asked, unpack_problem
from factorychain._process.messages import number, numbered
from factorychain._process.wire import (
    BODIES_MAX_BYTES,
    REQUEST_BODY_MAX_BYTES,
    REQUESTS_MAX,
    BrokenFrame,
    ToInstance,
)
from factorychain.errors import RunNotFound
from factorychain_agents.process.instance_process import Owner
from factorychain_agents.process.requests import Requests
from tests.silent_host import SilentHost
from tests.waiting import until_true


class Process:
    """Keeps what it is told."""

    pid = 1

    def __init__(self) -> None:
        self.told: list[tuple[ToInstance, bytes]] = []

    def belong_to(self, owner: Owner) -> None: ...

    def send(self, kind: ToInstance, payload: bytes = b"") -> None:
        self.told.append((kind, payload))

    async def flushed(self) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


class Host(SilentHost):
    """Answers when it may; notes who gave up waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.asked: list[int] = []
        self.forgotten = 0

    async def history(self, limit: int) -> Sequence[bytes]:
        self.asked.append(limit)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.forgotten += 1
            raise
        if limit == 13:
            raise RunNotFound("none of these")
        return [b"one", b"two"][:limit]


async def _at_once() -> None: ...


class World:
    def __init__(self) -> None:
        self.process = Process()
        self.host = Host()
        self.requests = Requests(self.process, self.host, _at_once)

    def asks(self, request: int, limit: int = 1, body: bytes = b"") -> None:
        self.requests.take(pack_asked(request, Asked("history", {"limit": limit}, body)))

    @property
    def ended(self) -> list[int]:
        ends = [each for kind, each in self.process.told if kind is ToInstance.ANSWER_END]
        return [numbered(each)[0] for each in ends]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    made.requests.close()
    await asyncio.sleep(0)


async def test_each_request_has_its_own_answer(world: World) -> None:
    world.asks(4, limit=2)
    world.asks(5, limit=13)
    world.host.gate.set()
    await until_true(lambda: len(world.ended) == 2)
    assert [each for each in world.process.told if each[1][:4] == number(4)] == [
        (ToInstance.ANSWER_PART, number(4) + b"one"),
        (ToInstance.ANSWER_PART, number(4) + b"two"),
        (ToInstance.ANSWER_END, number(4)),
    ]
    (problem,) = [each[1][4:] for each in world.process.told if each[1][:4] == number(5)]
    error = unpack_problem(problem)
    assert isinstance(error, RunNotFound)
    assert error.message == "none of these"


async def test_what_nobody_waits_for_is_given_up(world: World) -> None:
    world.asks(1)
    await until_true(lambda: world.host.asked == [1])
    world.requests.forget(1)
    world.requests.forget(1)
    await until_true(lambda: world.host.forgotten == 1)
    world.asks(1)  # its number and its place are free at once
    world.host.gate.set()
    await until_true(lambda: world.ended == [1])


async def test_what_is_forgotten_before_it_began_was_never_asked(world: World) -> None:
    world.asks(1)
    world.requests.forget(1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert world.host.asked == []


async def test_more_than_may_be_under_way_breaks_the_frame(world: World) -> None:
    for request in range(REQUESTS_MAX):
        world.asks(request)
    with pytest.raises(BrokenFrame, match="at once"):
        world.asks(REQUESTS_MAX)


async def test_more_bytes_than_may_be_under_way_break_the_frame(world: World) -> None:
    for request in range(BODIES_MAX_BYTES // REQUEST_BODY_MAX_BYTES):
        world.asks(request, body=bytes(REQUEST_BODY_MAX_BYTES))
    with pytest.raises(BrokenFrame, match="weigh"):
        world.asks(9, body=b"x")


async def test_a_number_that_is_taken_breaks_the_frame(world: World) -> None:
    world.asks(1)
    with pytest.raises(BrokenFrame, match="number"):
        world.asks(1)


@pytest.mark.parametrize(
    "asked",
    [
        Asked("nothing", {"limit": 1}),
        Asked("history", {}),
        Asked("history", {"limit": "1"}),
        Asked("emit", {"kind": 1}),
        Asked("__class__", {}),
    ],
)
async def test_what_no_agent_may_ask_for_breaks_the_frame(world: World, asked: Asked) -> None:
    with pytest.raises(BrokenFrame):
        world.requests.take(pack_asked(1, asked))


async def test_what_is_large_keeps_to_a_pace(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "sleep", waits := Waits())
    world.host.gate.set()
    for request in range(20):
        world.asks(request, body=bytes(REQUEST_BODY_MAX_BYTES))
        await until_true(lambda count=request + 1: len(world.ended) == count)  # type: ignore[misc]
    assert sum(each for each in waits.waited_s if each > 0.1) > 0.5


async def test_many_small_ones_keep_to_a_pace_as_well(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio, "sleep", waits := Waits())
    world.host.gate.set()
    for request in range(600):
        world.asks(request)
        await until_true(lambda count=request + 1: len(world.ended) == count)  # type: ignore[misc]
    assert sum(each for each in waits.waited_s if each > 0.02) > 0.5


class Waits:
    """`asyncio.sleep` that notes how long it would have been."""

    def __init__(self) -> None:
        self.waited_s: list[float] = []
        self._sleep = asyncio.sleep

    async def __call__(self, delay_s: float) -> None:
        self.waited_s.append(delay_s)
        await self._sleep(0)
