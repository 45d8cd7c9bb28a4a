"""The engine knows whether what it said of a run is in the log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from factorychain._core.ids import Principal
from factorychain.errors import ChainDegraded, FactoryChainError, RunEnded, TokenInvalid
from factorychain.types.v1.event_pb2 import Event
from factorychain_engine.admission.record import ActiveRun
from factorychain_engine.runs.speaking import Speaker, cause_of

ADA = Principal("acme", "ada")
PLACE = ActiveRun("r1", "t1", "a", "00", "e", 0.0, 300.0, base=2, base_seq=4, base_epoch=9)


class Link:
    """A link to the emitter with one run on it, and the tokens for it."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.said: list[str] = []
        self._failure = failure

    def lifecycle(self, _: Principal, entry: ActiveRun) -> str:
        return f"token of {entry.run}"

    @asynccontextmanager
    async def open(self, ctx: object, *, trace: str) -> AsyncIterator[Link]:
        self.said.append(f"{ctx}{trace}")
        yield self

    async def send(self, event: bytes, run_seq: int) -> None:
        kind = Event.FromString(event).WhichOneof("event")
        self.said.append(f"{kind} {run_seq}")

    async def flushed(self) -> None:
        self._answer("flushed")

    async def wait_ended(self) -> None:
        self._answer("ended")

    def _answer(self, what: str) -> None:
        if self._failure is not None:
            raise self._failure
        self.said.append(what)


async def say(link: Link, *, ends: bool = False) -> bool:
    event = Event()
    event.run_queued.position = 3
    return await Speaker(cast(Any, link), cast(Any, link)).say(ADA, PLACE, event, ends=ends)


async def test_an_ending_is_said_when_the_run_has_ended_and_all_else_when_it_is_stored() -> None:
    link = Link()
    assert await say(link)
    assert await say(link, ends=True)
    opened = ["token of r1", "run_queued 0"]
    assert link.said == [*opened, "flushed", *opened, "ended"]


async def test_of_a_run_that_has_ended_nothing_is_said() -> None:
    assert not await say(Link(RunEnded()))
    assert not await say(Link(RunEnded()), ends=True)


async def test_what_nobody_knows_is_raised() -> None:
    with pytest.raises(ChainDegraded):
        await say(Link(ChainDegraded("emitter")))


def test_a_cause_names_the_layer_or_the_reason() -> None:
    causes: list[FactoryChainError | TimeoutError] = [
        ChainDegraded("emitter"),
        TokenInvalid("forged"),
        TimeoutError(),
    ]
    assert [cause_of(each) for each in causes] == ["emitter", "TOKEN_INVALID", "no answer in time"]
