"""One run asks its user: what goes out as events, what comes back."""

from __future__ import annotations

import asyncio
import time

import pytest

from factorychain._instance.events import input_requested
from factorychain._instance.spec import InputRequest
from factorychain._instance.waiting import Waiting
from factorychain.errors import (
    EventRejected,
    InputTimeout,
    InvalidField,
    RequestAnswered,
    RequestClosed,
    RunNotFound,
)
from factorychain.types.v1.event_pb2 import Event
from factorychain_agents.asked import AskedUser
from tests.waiting import until_true

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-" + "1" * 32 + "-b7ad6b7169203331-01"


class World:
    """The user of a run, and what is said to them."""

    def __init__(self, ask_max_s: float = 100) -> None:
        self.events: list[Event] = []
        self.changes: list[bool] = []
        self.waiting = Waiting(ask_max_s)
        self.user = AskedUser(
            self,
            self.waiting,
            lambda: self.changes.append(self.waiting.now),
            trace=TRACE,
            event_max_bytes=65_536,
        )

    async def send_question(self, request: str, event: bytes) -> None:
        self.events.append(Event.FromString(event))

    def settle_question(self, request: str, event: bytes) -> None:
        self.events.append(Event.FromString(event))

    def ask(
        self, request: str = "q1", schema: str = "", timeout_s: float = 60, trace: str = TRACE
    ) -> asyncio.Task[bytes]:
        event = input_requested(trace, InputRequest(request, "question", "?", schema))
        path = Event(path=["helper"]).SerializeToString()
        return asyncio.create_task(self.user.ask(event + path, timeout_s))

    async def asked(self, request: str = "q1") -> None:
        await until_true(lambda: request in [each.input_requested.request for each in self.events])

    @property
    def received(self) -> list[tuple[str, str, str]]:
        found = [each.input_received for each in self.events if each.HasField("input_received")]
        return [(each.request, each.value_json, each.closed) for each in found]


async def test_the_answer_comes_after_its_event_and_the_run_waits_until_then() -> None:
    world = World()
    asking = world.ask()
    await world.asked()
    assert world.changes == [True]
    requested = world.events[0]
    left_s = requested.input_requested.expires_at.seconds - time.time()
    assert 55 < left_s < 65
    await world.user.respond("q1", '{"a": 1}')
    assert world.received == [("q1", '{"a": 1}', "")]
    assert list(world.events[-1].path) == ["helper"]
    assert await asking == b'{"a": 1}'
    assert world.changes == [True, False]


async def test_a_bad_answer_leaves_the_question_open() -> None:
    world = World()
    asking = world.ask(schema='{"type":"integer"}')
    await world.asked()
    with pytest.raises(InvalidField, match="not of type 'integer'"):
        await world.user.respond("q1", '"three"')
    assert not asking.done()
    await world.user.respond("q1", "3")
    assert await asking == b"3"


async def test_the_same_answer_again_is_nothing_new_and_another_one_is_refused() -> None:
    world = World()
    asking = world.ask()
    await world.asked()
    await asyncio.gather(*(world.user.respond("q1", "1") for _ in range(5)))
    with pytest.raises(RequestAnswered):
        await world.user.respond("q1", "2")
    assert await asking == b"1"
    assert world.received == [("q1", "1", "")]


async def test_of_two_answers_at_once_one_counts() -> None:
    world = World()
    asking = world.ask(schema='{"type":"integer"}')
    await world.asked()
    results = await asyncio.gather(
        *(world.user.respond("q1", str(number)) for number in range(4)), return_exceptions=True
    )
    assert sum(each is None for each in results) == 1
    assert world.received == [("q1", (await asking).decode(), "")]


async def test_a_question_whose_time_is_over_is_closed_and_raises() -> None:
    world = World()
    asking = world.ask(timeout_s=0.02)
    with pytest.raises(InputTimeout, match=r"within 0\.02 s"):
        await asking
    assert world.received == [("q1", "null", "EXPIRED")]
    with pytest.raises(RequestClosed):
        await world.user.respond("q1", "1")


async def test_a_run_waits_no_longer_than_it_may() -> None:
    world = World(ask_max_s=0.03)
    with pytest.raises(InputTimeout):
        await world.ask()
    with pytest.raises(InputTimeout, match="as long as a run may"):
        await world.ask("q2")
    assert len(world.received) == 1


async def test_who_is_cancelled_while_asking_has_withdrawn_the_question() -> None:
    world = World()
    asking = world.ask()
    await world.asked()
    asking.cancel()
    await asyncio.wait({asking})
    assert asking.cancelled()
    assert world.received == [("q1", "null", "WITHDRAWN")]
    assert world.changes == [True, False]


async def test_the_end_of_the_run_closes_what_is_open_and_takes_no_answer() -> None:
    world = World()
    asking = [world.ask("q1"), world.ask("q2")]
    await world.asked("q2")
    await world.user.respond("q1", "1")
    world.user.close_all()
    for each in asking:
        each.cancel()
    await asyncio.wait(asking)
    assert world.received == [("q1", "1", ""), ("q2", "null", "CANCELLED")]
    with pytest.raises(RunNotFound):
        await world.user.respond("q2", "1")


async def test_questions_in_parallel_are_answered_in_any_order() -> None:
    world = World()
    asking = [world.ask(f"q{number}") for number in range(3)]
    await world.asked("q2")
    for number in (2, 0, 1):
        await world.user.respond(f"q{number}", str(number))
    assert [await each for each in asking] == [b"0", b"1", b"2"]
    assert world.changes == [True, False]


async def test_what_is_no_question_of_this_run_is_refused() -> None:
    world = World()
    with pytest.raises(InvalidField, match="schema"):
        await world.ask(schema='{"type":"nonsense"}')
    with pytest.raises(EventRejected, match="another trace"):
        await world.ask(trace=OTHER)
    with pytest.raises(EventRejected):
        await world.user.ask(Event(trace=TRACE).SerializeToString(), 1)
    with pytest.raises(InvalidField, match="bytes"):
        await world.user.respond("q1", '"' + "x" * 70_000 + '"')
    assert world.events == []
    assert world.changes == []
