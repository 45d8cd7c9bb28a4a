"""The service, as an instance sees it."""

from __future__ import annotations

import asyncio

import pytest

from factorychain._instance.spec import Outcome, OutcomeKind
from factorychain._process.messages import number
from factorychain._process.remote_host import RemoteHost
from factorychain._process.wire import EVENT_MAX_BYTES, WINDOW_BYTES, Decoder, FromInstance
from factorychain.errors import EventRejected, RunEnded


class Sent:
    """An outbox that keeps everything."""

    def __init__(self) -> None:
        self._decoder = Decoder(FromInstance)
        self.frames: list[tuple[int, bytes]] = []

    def post(self, frame: bytes, *, loose: bool = False) -> None:
        self._decoder.feed(frame)
        self.frames += self._decoder.frames()

    @property
    def events(self) -> list[bytes]:
        return [payload[4:] for kind, payload in self.frames if kind == FromInstance.EVENT]


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def host(sent: Sent) -> RemoteHost:
    return RemoteHost(sent)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_an_event_leaves_at_once_while_there_is_room(host: RemoteHost, sent: Sent) -> None:
    await host.emit(3, b"event")
    assert sent.frames == [(FromInstance.EVENT, number(3) + b"event")]


async def test_events_wait_for_room_in_their_order_and_signs_of_life_do_not(
    host: RemoteHost, sent: Sent
) -> None:
    large = bytes(WINDOW_BYTES)
    waiting = [asyncio.create_task(host.emit(1, each)) for each in (large, b"2", b"3")]
    await turns()
    assert sent.events == [large]
    host.beat()
    assert sent.frames[-1][0] == FromInstance.BEAT
    host.more_room(WINDOW_BYTES + 100)
    await asyncio.gather(*waiting)
    assert sent.events == [large, b"2", b"3"]


async def test_an_event_whose_speaker_is_cancelled_leaves_all_the_same(
    host: RemoteHost, sent: Sent
) -> None:
    first = asyncio.create_task(host.emit(1, bytes(WINDOW_BYTES)))
    second = asyncio.create_task(host.emit(1, b"cancelled"))
    await turns()
    second.cancel()
    await turns()
    host.more_room(2 * WINDOW_BYTES)
    await first
    assert sent.events[-1] == b"cancelled"


async def test_the_outcome_comes_after_every_event(host: RemoteHost, sent: Sent) -> None:
    speaking = [asyncio.create_task(host.emit(1, bytes(WINDOW_BYTES))) for _ in range(2)]
    await turns()
    ending = asyncio.create_task(host.outcome(Outcome(OutcomeKind.CANCELLED)))
    await turns()
    assert not ending.done()
    host.more_room(2 * WINDOW_BYTES)
    await ending
    assert [kind for kind, _ in sent.frames][-2:] == [FromInstance.EVENT, FromInstance.OUTCOME]
    for each in speaking:
        each.cancel()


async def test_after_the_end_nothing_can_be_said_or_asked(host: RemoteHost, sent: Sent) -> None:
    waiting = asyncio.create_task(host.emit(1, bytes(WINDOW_BYTES)))
    await turns()
    host.close()
    await waiting
    with pytest.raises(RunEnded):
        await host.emit(1, b"more")
    with pytest.raises(RunEnded):
        await host.history(3)


async def test_an_event_that_no_host_takes_is_refused_here(host: RemoteHost, sent: Sent) -> None:
    with pytest.raises(EventRejected):
        await host.emit(1, bytes(EVENT_MAX_BYTES + 1))
    assert sent.frames == []
