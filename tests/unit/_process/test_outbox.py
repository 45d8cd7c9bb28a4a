"""The writing end of a socket."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from factorychain._process.outbox import Outbox


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


async def read(end: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        found += await asyncio.get_running_loop().sock_recv(end, 65_536)
    return found


async def test_more_than_the_socket_takes_leaves_in_order(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    outbox = Outbox(ends[0], asyncio.get_running_loop())
    sent = [bytes([index]) * 50_000 for index in range(50)]
    for each in sent:
        outbox.post(each)
    waiting = asyncio.create_task(outbox.flushed())
    assert await read(ends[1], 2_500_000) == b"".join(sent)
    await waiting


async def test_threads_may_post_while_the_loop_does_something_else(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    outbox = Outbox(ends[0], asyncio.get_running_loop())
    thread = threading.Thread(target=outbox.post, args=(b"from a thread",))
    thread.start()
    thread.join()  # the loop stands still meanwhile
    assert ends[1].recv(100) == b"from a thread"


async def test_what_nobody_waits_for_is_dropped_when_too_much_waits(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    outbox = Outbox(ends[0], asyncio.get_running_loop())
    for _ in range(50):
        outbox.post(bytes(100_000), loose=True)
    assert outbox.dropped
    outbox.post(b"needed")
    kept = (50 - outbox.dropped) * 100_000
    assert (await read(ends[1], kept + 6))[-6:] == b"needed"


async def test_who_waits_hears_that_the_other_side_is_gone(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    outbox = Outbox(ends[0], asyncio.get_running_loop())
    outbox.post(bytes(5_000_000))
    waiting = asyncio.create_task(outbox.flushed())
    await asyncio.sleep(0)
    ends[1].close()
    await waiting
    outbox.post(b"into the void")


async def test_a_closed_one_lets_go_of_the_socket_and_of_who_waits(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    outbox = Outbox(ends[0], asyncio.get_running_loop())
    outbox.post(bytes(5_000_000))
    waiting = asyncio.create_task(outbox.flushed())
    await asyncio.sleep(0)
    outbox.close()
    await waiting
    assert not asyncio.get_running_loop().remove_writer(ends[0])
