"""What becomes of carried calls whose stream breaks, is not there, or is not read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from factorychain._core.carried import breaks
from factorychain._core.carried.breaks import Breaks
from factorychain._core.carried.call import UNREAD_MAX
from factorychain._core.carried.calls import CarriedStream, CarriedUnary
from factorychain._core.carried.carrier import QUEUED_MAX_BYTES, CallCarrier
from factorychain._core.link.run import HEALTHY_AFTER_S
from factorychain.engine.v1.engine_pb2 import CarryCallsRequest, CarryCallsResponse
from factorychain.types.v1.calls_pb2 import CallAnswer, CallFrame, CallNotTaken
from tests.waiting import until_true


def broken(code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone")


BROKEN = broken()


class Peer:
    """The other end of one stream, as the carrier sees it."""

    def __init__(self) -> None:
        self.heard: list[CallFrame] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self._said: asyncio.Queue[CarryCallsResponse | Exception | None] = asyncio.Queue()

    def say(self, *answers: CallAnswer) -> None:
        self._said.put_nowait(CarryCallsResponse(answers=answers))

    def break_off(self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self._said.put_nowait(broken(code))

    async def __aiter__(self) -> AsyncIterator[CarryCallsResponse]:
        while (message := await self._said.get()) is not None:
            if isinstance(message, Exception):
                raise message
            yield message

    async def write(self, request: Any) -> None:
        await self.reads.wait()
        self.heard += request.frames

    async def done_writing(self) -> None:
        self._said.put_nowait(None)

    def cancel(self) -> bool:
        return True


class Streams:
    """Gives the carrier streams."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []

    def __call__(self) -> Peer:
        self.peers.append(Peer())
        return self.peers[-1]


class ByItself:
    """The method as gRPC calls it."""

    def __init__(self) -> None:
        self.timeouts: list[float | None] = []

    def __call__(self, request: bytes, *, timeout: float | None, **_: Any) -> Any:
        self.timeouts.append(timeout)
        return self

    def add_done_callback(self, callback: Any) -> None:
        """Never called: nothing is waited for."""

    def __await__(self) -> Any:
        return self.read().__await__()

    async def read(self) -> bytes:
        return b"by itself"


def _same(value: bytes) -> bytes:
    return value


class World:
    def __init__(self) -> None:
        self.streams = Streams()
        self.by_itself = ByItself()
        self.carrier = CallCarrier(self.streams, _message, 1, "peer")

    @property
    def peer(self) -> Peer:
        return self.streams.peers[-1]

    def unary(self, *, repeat_safe: bool = True, timeout: float | None = 20) -> Any:
        inner: Any = self.by_itself
        method = CarriedUnary(inner, self.carrier, "/S/M", _same, _same, repeat_safe)
        return asyncio.ensure_future(_awaited(method(b"?", timeout=timeout)))

    def stream(self) -> Any:
        inner: Any = self.by_itself
        return CarriedStream(inner, self.carrier, "/S/M", _same, _same)(b"?")

    async def begun(self) -> int:
        """The number of the call that the peer hears of next."""
        await until_true(lambda: self.peer.heard)
        return self.peer.heard.pop(0).call


async def _awaited(call: Any) -> Any:
    return await call


def _message(frames: Sequence[CallFrame]) -> CarryCallsRequest:
    return CarryCallsRequest(frames=frames)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.carrier.start()
    await until_true(lambda: world.streams.peers)
    world.peer.say()
    await until_true(lambda: world.carrier.ready)
    yield world
    await world.carrier.stop()


async def test_answers_come_to_the_call_that_they_are_of(world: World) -> None:
    calls = [world.unary() for _ in range(3)]
    numbers = [await world.begun() for _ in calls]
    for number in reversed(numbers):
        world.peer.say(CallAnswer(call=number, message=str(number).encode()))
    assert [await each for each in calls] == [str(each).encode() for each in numbers]
    assert world.by_itself.timeouts == []


async def test_a_call_that_may_be_repeated_is_when_its_stream_breaks(world: World) -> None:
    safe, unsafe, life = world.unary(), world.unary(repeat_safe=False), world.stream()
    for _ in range(3):
        await world.begun()
    world.peer.break_off()
    assert await safe == b"by itself"
    for each in (unsafe, life.read()):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await each
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert len(world.by_itself.timeouts) == 1
    (left_s,) = world.by_itself.timeouts
    assert left_s is not None
    assert 0 < left_s <= 20


async def test_what_is_not_taken_is_made_by_itself(world: World) -> None:
    unary, life = world.unary(repeat_safe=False), world.stream()
    for _ in range(2):
        world.peer.say(CallAnswer(call=await world.begun(), not_taken=CallNotTaken()))
    assert await unary == b"by itself"
    assert await life.read() == b"by itself"


async def test_what_never_left_is_made_by_itself_when_the_stream_breaks(world: World) -> None:
    world.peer.reads.clear()
    first = world.unary(repeat_safe=False)  # taken by the writer, so nobody knows
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = world.unary(repeat_safe=False)
    await asyncio.sleep(0)
    world.peer.break_off()
    assert await second == b"by itself"
    with pytest.raises(grpc.aio.AioRpcError):
        await first


async def test_without_a_stream_calls_are_made_by_themselves(world: World) -> None:
    world.peer.break_off()
    await until_true(lambda: not world.carrier.ready)
    assert await world.unary() == b"by itself"


async def test_a_stream_that_is_back_carries_again(world: World) -> None:
    world.peer.break_off()
    await until_true(lambda: len(world.streams.peers) >= 2)
    assert not world.carrier.ready  # its peer has not answered
    world.peer.say()
    await until_true(lambda: world.carrier.ready)
    call = world.unary()
    world.peer.say(CallAnswer(call=await world.begun(), message=b"!"))
    assert await call == b"!"


async def test_a_peer_that_does_not_read_is_given_no_more(world: World) -> None:
    world.peer.reads.clear()
    world.carrier.begin("/S/M", b"", {}, None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert world.carrier.begin("/S/M", b" " * QUEUED_MAX_BYTES, {}, None) is not None
    assert world.carrier.begin("/S/M", b"", {}, None) is None


async def test_a_call_that_is_not_read_is_given_up(world: World) -> None:
    life = world.stream()
    number = await world.begun()
    world.peer.say(*[CallAnswer(call=number, message=b"!")] * (UNREAD_MAX + 1))
    await until_true(lambda: world.peer.heard)
    assert world.peer.heard[0].WhichOneof("frame") == "cancel"
    for _ in range(UNREAD_MAX + 1):
        assert await life.read() == b"!"
    with pytest.raises(grpc.aio.AioRpcError):
        await life.read()


async def test_a_call_whose_caller_is_cancelled_is_cancelled_at_the_peer(world: World) -> None:
    call = world.unary()
    number = await world.begun()
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    await until_true(lambda: world.peer.heard)
    assert world.peer.heard[0].WhichOneof("frame") == "cancel"
    assert world.peer.heard[0].call == number


async def test_a_stream_of_old_age_is_replaced_when_its_calls_are_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("factorychain._core.carried.carrier.AGE_S", 0.01)
    world = World()
    world.carrier = CallCarrier(world.streams, _message, 2, "peer")
    await world.carrier.start()
    await until_true(lambda: len(world.streams.peers) >= 2)
    for each in world.streams.peers:
        each.say()
    await until_true(lambda: len(world.streams.peers) >= 4)
    await world.carrier.stop()


async def test_a_stream_that_breaks_is_told_and_one_that_ends_is_not(world: World) -> None:
    before = breaks._broken.value({"peer": "peer"})
    with capture_logs() as lines:
        call = world.unary()
        await world.begun()
        world.peer.break_off()
        assert await call == b"by itself"
        await until_true(lambda: len(world.streams.peers) == 2)
        world.peer.say()
        await until_true(lambda: world.carrier.ready)
        await world.peer.done_writing()
        await until_true(lambda: len(world.streams.peers) == 3)
    (line,) = [each for each in lines if each["event"] == "a stream that carries calls broke"]
    assert (line["log_level"], line["calls"], line["cause"]) == ("warning", 1, "UNAVAILABLE: gone")
    assert breaks._broken.value({"peer": "peer"}) == before + 1


async def test_a_peer_that_carries_nothing_is_not_told(world: World) -> None:
    before = breaks._broken.value({"peer": "peer"})
    world.peer.break_off(grpc.StatusCode.UNIMPLEMENTED)
    await until_true(lambda: not world.carrier.ready)
    assert breaks._broken.value({"peer": "peer"}) == before


def test_streams_that_break_again_and_again_are_ever_fewer_lines() -> None:
    told = Breaks("peer")
    with capture_logs() as lines:
        for _ in range(100):
            told.ended(BROKEN, up_s=0.01, calls=0)
        assert [each["broken"] for each in lines] == [1, 2, 4, 8, 16, 32, 64]
        told.ended(None, up_s=HEALTHY_AFTER_S, calls=0)
        told.ended(BROKEN, up_s=0.01, calls=0)
        assert lines[-1]["broken"] == 1
        told.ended(BROKEN, up_s=HEALTHY_AFTER_S, calls=1)
        assert lines[-1]["broken"] == 1
    assert [each["log_level"] for each in lines] == ["info"] * 8 + ["warning"]


def test_a_peer_that_is_not_there_is_worth_a_warning_only_after_a_while() -> None:
    told = Breaks("peer")
    with capture_logs() as lines:
        for _ in range(8):
            told.ended(BROKEN, up_s=None, calls=0)
        assert [each["log_level"] for each in lines] == ["debug"] * 3 + ["warning"]
        told.ended(None, up_s=HEALTHY_AFTER_S, calls=0)
        told.ended(BROKEN, up_s=None, calls=0)
        assert lines[-1]["log_level"] == "info"
