"""How long a link waits before it opens its next stream, by a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from types import SimpleNamespace

import pytest

from factorychain._core.link import client as client_module
from factorychain._core.link.client import LinkClient, ReceiptMessage
from factorychain.errors import ChainDegraded
from factorychain.types.v1.link_pb2 import RunFrame, RunReceipt

LONG_S = 30.0


class Answer:
    receipts: Sequence[RunReceipt] = ()


class Stream:
    """Breaks after `LONG_S`; the peer may have answered before."""

    def __init__(self, peers: Peers, answered: bool) -> None:
        self._peers, self._answered = peers, answered

    async def __aiter__(self) -> AsyncIterator[ReceiptMessage]:
        if self._answered:
            yield Answer()
        self._peers.now_s += LONG_S
        raise ChainDegraded("peer")

    async def write(self, request: Sequence[RunFrame]) -> None:
        """Nothing is ever sent here."""

    async def done_writing(self) -> None: ...

    def cancel(self) -> bool:
        return True


class Peers:
    """One stream after the other; the last one stays."""

    def __init__(self, answered: Iterable[bool]) -> None:
        self.now_s = 0.0
        self.over = asyncio.Event()
        self._answered = list(answered)

    def __call__(self) -> Stream | Silent:
        if not self._answered:
            self.over.set()
            return Silent(self, False)
        return Stream(self, self._answered.pop(0))


class Silent(Stream):
    """Neither answers nor breaks."""

    async def __aiter__(self) -> AsyncIterator[ReceiptMessage]:
        await asyncio.Event().wait()
        yield Answer()


async def pauses(monkeypatch: pytest.MonkeyPatch, *answered: bool) -> list[int]:
    """Before which streams it has paused, by how many had failed in a row."""
    peers, paused = Peers(answered), list[int]()

    def backoff_s(failures: int) -> float:
        paused.append(failures)
        return 0.0

    monkeypatch.setattr(client_module, "time", SimpleNamespace(monotonic=lambda: peers.now_s))
    monkeypatch.setattr(client_module, "backoff_s", backoff_s)
    link: LinkClient[Sequence[RunFrame]] = LinkClient("test", peers, lambda frames: frames)
    await link.start()
    await peers.over.wait()
    await link.stop()
    return paused


async def test_a_call_that_nobody_answers_is_not_healthy_however_long_it_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await pauses(monkeypatch, False, False, False, False) == [1, 2, 3]


async def test_pauses_begin_anew_after_a_stream_that_was_up_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await pauses(monkeypatch, False, False, False, True, False, False) == [1, 2, 1, 2]
