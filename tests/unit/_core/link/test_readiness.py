"""A service that passes events on says that it serves when somebody takes them."""

from __future__ import annotations

import asyncio

from factorychain._core.link import ServingOnceLinked
from tests.waiting import until


class Link:
    """Comes up when it is told to."""

    def __init__(self) -> None:
        self.up = asyncio.Event()

    async def wait_connected(self) -> None:
        await self.up.wait()


async def test_it_serves_from_the_first_answer_of_its_peer_on() -> None:
    link, said = Link(), list[bool]()
    readiness = ServingOnceLinked(link, said.append)
    await readiness.start()
    await asyncio.sleep(0)
    assert said == []
    link.up.set()

    async def spoken() -> bool:
        return bool(said)

    await until(spoken)
    await readiness.stop()
    assert said == [True]
    assert readiness.healthy


async def test_it_stops_without_having_served() -> None:
    said = list[bool]()
    readiness = ServingOnceLinked(Link(), said.append)
    await readiness.start()
    await readiness.stop()
    assert said == []
