"""Requests under way, as the instance that asks sees them."""

from __future__ import annotations

import asyncio

import pytest

from factorychain._process.asked import Asked, pack_problem, unpack_asked
from factorychain._process.asking import Asking
from factorychain._process.messages import number
from factorychain._process.wire import (
    BODIES_MAX_BYTES,
    REQUEST_BODY_MAX_BYTES,
    REQUESTS_MAX,
    Decoder,
    FromInstance,
)
from factorychain.errors import RunEnded, RunNotFound


class Sent:
    """An outbox that keeps everything."""

    def __init__(self) -> None:
        self._decoder = Decoder(FromInstance)
        self.frames: list[tuple[int, bytes]] = []

    def post(self, frame: bytes, *, loose: bool = False) -> None:
        self._decoder.feed(frame)
        self.frames += self._decoder.frames()

    @property
    def asked(self) -> list[tuple[int, Asked]]:
        return [unpack_asked(each) for kind, each in self.frames if kind == FromInstance.REQUEST]


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def asking(sent: Sent) -> Asking:
    return Asking(sent)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_answers_come_in_parts_to_whom_they_are_for(asking: Asking, sent: Sent) -> None:
    waiting = [asyncio.create_task(asking.ask("read", b"body", limit=n)) for n in (1, 2)]
    await turns()
    (first, one), (second, two) = sent.asked
    assert (one, two) == (
        Asked("read", {"limit": 1}, b"body"),
        Asked("read", {"limit": 2}, b"body"),
    )
    asking.part(second, b"two")
    asking.part(first, b"one")
    asking.part(second, b"more")
    asking.end(second, b"")
    asking.end(first, b"")
    assert await asyncio.gather(*waiting) == [[b"one"], [b"two", b"more"]]


async def test_a_request_that_fails_raises_what_the_service_met(asking: Asking, sent: Sent) -> None:
    waiting = asyncio.create_task(asking.ask("read"))
    await turns()
    asking.end(sent.asked[0][0], pack_problem(RunNotFound("no such run")))
    with pytest.raises(RunNotFound, match="no such run"):
        await waiting


async def test_who_does_not_wait_any_more_says_so_and_late_answers_are_dropped(
    asking: Asking, sent: Sent
) -> None:
    waiting = asyncio.create_task(asking.ask("read"))
    await turns()
    request, _ = sent.asked[0]
    waiting.cancel()
    await turns()
    assert sent.frames[-1] == (FromInstance.FORGET, number(request))
    asking.part(request, b"late")
    asking.end(request, b"")


async def test_what_is_asked_too_much_waits_for_its_turn(asking: Asking, sent: Sent) -> None:
    waiting = [asyncio.create_task(asking.ask("read", n=n)) for n in range(REQUESTS_MAX + 2)]
    await turns()
    assert len(sent.asked) == REQUESTS_MAX
    asking.end(sent.asked[0][0], b"")
    await turns()
    assert [each.arguments["n"] for _, each in sent.asked] == list(range(REQUESTS_MAX + 1))
    waiting[1].cancel()  # a place is freed by who gives up as well
    await turns()
    assert len(sent.asked) == REQUESTS_MAX + 2
    for request, _ in sent.asked:
        asking.end(request, b"")
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_bodies_wait_until_there_is_room_for_them(asking: Asking, sent: Sent) -> None:
    body = bytes(REQUEST_BODY_MAX_BYTES)
    waiting = [asyncio.create_task(asking.ask("write", body)) for _ in range(3)]
    await turns()
    assert sum(len(each.body) for _, each in sent.asked) == BODIES_MAX_BYTES
    for count in (1, 2, 3):
        asking.end(sent.asked[count - 1][0], b"")
        await turns()
    await asyncio.gather(*waiting)


async def test_a_body_that_no_service_takes_is_refused_here(asking: Asking, sent: Sent) -> None:
    with pytest.raises(ValueError, match="at most"):
        await asking.ask("write", bytes(REQUEST_BODY_MAX_BYTES + 1))
    assert sent.frames == []


async def test_after_the_end_nothing_is_asked_and_nobody_waits(asking: Asking, sent: Sent) -> None:
    waiting = asyncio.create_task(asking.ask("read"))
    await turns()
    asking.close()
    with pytest.raises(RunEnded):
        await waiting
    with pytest.raises(RunEnded):
        await asking.ask("read")
