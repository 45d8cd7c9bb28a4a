"""A component that stops being well is said once, and once when it is well again."""

from __future__ import annotations

from structlog.testing import capture_logs

from factorychain._core.component import ComponentGroup
from factorychain._core.watchdog import HealthWatch


class Part:
    name = "part"
    healthy = True

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


async def test_each_change_of_health_is_said_once() -> None:
    part = Part()
    group = ComponentGroup([part])
    await group.start()
    watch = HealthWatch(group)
    with capture_logs() as lines:
        for healthy in (True, False, False, True, True):
            part.healthy = healthy
            watch.look()
    assert [line["event"] for line in lines] == [
        "a component is not healthy",
        "a component is healthy again",
    ]
    await group.stop()
