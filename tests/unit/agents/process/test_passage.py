"""The way of events to the host."""

from __future__ import annotations

import asyncio

import pytest

from factorychain._instance.events import AGENT_THINKING, MESSAGE_DELTA
from factorychain._instance.spec import Outcome, OutcomeKind
from factorychain._process.wire import ENTRY_BYTES, EVENT_MAX_BYTES, WINDOW_BYTES, BrokenFrame
from factorychain.errors import EventRejected, RunEnded
from factorychain.types.v1.event_pb2 import Event, MessageDelta
from factorychain_agents.process.pace import Pace
from factorychain_agents.process.passage import Passage
from tests.silent_host import SilentHost
from tests.waiting import until_true

DONE = Outcome(OutcomeKind.COMPLETED, "1")


class Host(SilentHost):
    """Takes events when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[bytes] = []
        self.room = asyncio.Event()
        self.room.set()
        self.raises: Exception | None = None

    async def emit(self, kind: int, event: bytes) -> None:
        await self.room.wait()
        if self.raises is not None:
            raise self.raises
        self.events.append(event)


class World:
    """A passage, and what is around it."""

    def __init__(self) -> None:
        self.host = Host()
        self.given_bytes = 0
        self.rejections: list[str] = []
        self.is_closed = False
        self.outcomes: list[Outcome] = []
        self.passage = Passage("r", self.host, self, Pace(1e6, 1e6), self.outcomes.append)

    def room(self, passed_on_bytes: int) -> None:
        self.given_bytes += passed_on_bytes

    def reject(self, reason: str, message: str) -> None:
        self.rejections.append(reason)

    def closed(self) -> None:
        self.is_closed = True

    async def done(self) -> None:
        await until_true(lambda: self.outcomes)


async def test_events_arrive_in_order_and_the_outcome_after_them() -> None:
    world = World()
    world.host.room.clear()
    for index in range(5):
        world.passage.take(1, b"%d" % index)
    world.passage.finish(DONE)
    await asyncio.sleep(0)
    assert world.outcomes == []
    world.host.room.set()
    await world.done()
    assert world.host.events == [b"0", b"1", b"2", b"3", b"4"]
    assert world.outcomes == [DONE]


async def test_room_is_given_for_what_was_passed_on() -> None:
    world = World()
    for _ in range(8):
        world.passage.take(1, bytes(WINDOW_BYTES // 8))
    world.passage.finish(DONE)
    await world.done()
    assert world.given_bytes >= WINDOW_BYTES * 3 // 4


async def test_who_sends_more_than_there_is_room_for_is_found_out() -> None:
    world = World()
    world.host.room.clear()
    world.passage.take(1, bytes(EVENT_MAX_BYTES))
    world.passage.take(1, bytes(WINDOW_BYTES))
    with pytest.raises(BrokenFrame, match="room"):
        world.passage.take(1, b"more")
    world.passage.close()


async def test_empty_events_take_room_too() -> None:
    world = World()
    world.host.room.clear()
    for _ in range((WINDOW_BYTES + EVENT_MAX_BYTES) // ENTRY_BYTES + 1):
        world.passage.take(1, b"")
    with pytest.raises(BrokenFrame):
        world.passage.take(1, b"")
    world.passage.close()


async def test_a_rejected_event_is_told_and_the_next_ones_pass() -> None:
    world = World()
    world.host.raises = EventRejected("EVENT_TOO_LARGE", "too large")
    world.passage.take(1, b"large")
    await until_true(lambda: world.rejections)
    world.host.raises = None
    world.passage.take(1, b"small")
    world.passage.finish(DONE)
    await world.done()
    assert world.host.events == [b"small"]
    assert world.rejections == ["EVENT_TOO_LARGE"]


async def test_when_the_run_is_over_the_instance_is_told_and_its_outcome_still_comes() -> None:
    world = World()
    world.host.raises = RunEnded()
    world.passage.take(1, b"late")
    world.passage.finish(DONE)
    await world.done()
    assert world.is_closed


async def test_a_fast_run_waits_and_says_everything() -> None:
    world = World()
    world.passage = Passage("r", world.host, world, Pace(200, 10), world.outcomes.append)
    for index in range(30):
        world.passage.take(1, b"%d" % index)
    world.passage.finish(DONE)
    began_s = asyncio.get_running_loop().time()
    await world.done()
    assert asyncio.get_running_loop().time() - began_s > 0.05
    assert len(world.host.events) == 30


def _delta(text: str, message: str = "m1") -> tuple[int, bytes]:
    event = Event(trace="t", message_delta=MessageDelta(message=message, text=text))
    return MESSAGE_DELTA, event.SerializeToString()


async def test_text_that_had_to_wait_goes_on_as_one_event() -> None:
    world = World()
    world.passage = Passage("r", world.host, world, Pace(20, 1), world.outcomes.append)
    for index in range(400):
        world.passage.take(*_delta(f"{index} "))
    world.passage.take(AGENT_THINKING, b"")
    world.passage.take(*_delta("another", "m2"))
    world.passage.finish(DONE)
    await world.done()
    found = [Event.FromString(each).message_delta for each in world.host.events]
    texts = {
        message: "".join(each.text for each in found if each.message == message)
        for message in ("m1", "m2")
    }
    assert texts == {"m1": "".join(f"{index} " for index in range(400)), "m2": "another"}
    assert len(found) == 4
    assert found[-2].text == ""
    assert world.passage._queued_bytes == 0


async def test_a_turn_comes_when_all_that_was_taken_before_is_passed_on() -> None:
    world = World()
    world.host.room.clear()
    world.passage.take(1, b"before")
    turn, given_up = world.passage.in_turn(), world.passage.in_turn()
    world.passage.take(1, b"after")
    given_up.cancel()
    await asyncio.sleep(0)
    assert not turn.done()
    turn.add_done_callback(lambda _: world.host.events.append(b"turn"))
    world.host.room.set()
    world.passage.finish(DONE)
    await world.done()
    assert world.host.events.index(b"turn") > world.host.events.index(b"before")
    assert turn.done()
