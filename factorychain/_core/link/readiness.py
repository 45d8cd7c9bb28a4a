"""When a service that passes events on may be asked to: not before somebody takes them.

Invariant: serving is reported once, at the peer's first answer. A later outage of the peer is held back
by the link, and taking the service out of use would mend nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from factorychain._core.component import TaskSet


class Connecting(Protocol):
    """A link that comes up at some time (`LinkClient`)."""

    async def wait_connected(self) -> None: ...


class ServingOnceLinked:
    """A component: reports the service as serving when its link has come up for the first time."""

    name = "readiness"

    def __init__(self, link: Connecting, set_serving: Callable[[bool], None]) -> None:
        self._link = link
        self._set_serving = set_serving
        self._tasks = TaskSet(self.name)

    @property
    def healthy(self) -> bool:
        return self._tasks.healthy

    async def start(self) -> None:
        _ = self._tasks.spawn(self._wait(), "link")

    async def stop(self) -> None:
        await self._tasks.close()

    async def _wait(self) -> None:
        await self._link.wait_connected()
        self._set_serving(True)
