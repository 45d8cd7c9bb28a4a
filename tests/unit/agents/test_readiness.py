"""When a replica takes new work."""

from __future__ import annotations

import asyncio

from factorychain_agents.readiness import Readiness
from tests.waiting import until_true


class Link:
    def __init__(self) -> None:
        self.connected = asyncio.Event()

    async def wait_connected(self) -> None:
        await self.connected.wait()


class Part:
    name = "part"
    healthy = True

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


async def test_not_before_the_link_and_not_while_something_needed_is_unwell() -> None:
    link, part, said = Link(), Part(), list[bool]()
    readiness = Readiness(link, [part], said.append)
    await readiness.start()
    assert said == []
    link.connected.set()
    await until_true(lambda: said == [True])
    part.healthy = False
    readiness.look()
    part.healthy = True
    readiness.look()
    assert said == [True, False, True]
    await readiness.stop()
