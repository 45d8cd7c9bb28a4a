"""Components start in order and stop in reverse; no task dies unheard."""

from __future__ import annotations

import asyncio
import contextvars

import pytest
from structlog.testing import capture_logs

from factorychain._core.component import ComponentGroup, TaskSet

whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="nobody")


class Part:
    def __init__(
        self, name: str, told: list[str], *, fails: bool = False, hangs: bool = False
    ) -> None:
        self.name = name
        self.healthy = True
        self._told = told
        self._fails = fails
        self._hangs = hangs

    async def start(self) -> None:
        self._told.append(f"+{self.name}")
        if self._fails:
            raise RuntimeError("no")

    async def stop(self) -> None:
        self._told.append(f"-{self.name}")
        if self._hangs:
            await asyncio.Event().wait()


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_group_starts_in_order_and_stops_in_reverse() -> None:
    told: list[str] = []
    group = ComponentGroup([Part("a", told), Part("b", told)])
    healthy = [group.healthy]
    await group.start()
    healthy.append(group.healthy)
    await group.stop()
    await group.stop()
    assert healthy == [False, True]
    assert told == ["+a", "+b", "-b", "-a"]


async def test_a_failed_start_stops_what_was_begun_and_is_raised() -> None:
    told: list[str] = []
    group = ComponentGroup([Part("a", told), Part("b", told, fails=True), Part("c", told)])
    with pytest.raises(RuntimeError, match="no"):
        await group.start()
    assert told == ["+a", "+b", "-b", "-a"]


async def test_one_that_hangs_does_not_keep_the_others_from_stopping() -> None:
    told: list[str] = []
    parts = [Part("a", told), Part("b", told, hangs=True)]
    group = ComponentGroup(parts, drain_timeout_s=0.01)
    await group.start()
    with capture_logs() as lines:
        await group.stop()
    assert told[-2:] == ["-b", "-a"]
    assert [line["component"] for line in lines if line["log_level"] == "error"] == ["b"]


async def test_a_group_names_who_is_not_well() -> None:
    told: list[str] = []
    ill = Part("ill", told)
    group = ComponentGroup([Part("well", told), ill])
    await group.start()
    ill.healthy = False
    assert group.unhealthy() == ["ill"]
    assert not group.healthy
    await group.stop()


async def test_a_task_that_fails_is_logged_counted_and_reported() -> None:
    reported: list[str] = []
    tasks = TaskSet("owner", lambda name, error: reported.append(f"{name}: {error}"))

    async def fail() -> None:
        raise ValueError("broken")

    with capture_logs() as lines:
        await asyncio.wait([tasks.spawn(fail(), "loop")])
        await asyncio.sleep(0)
    assert reported == ["owner:loop: broken"]
    assert not tasks.healthy
    assert lines[0]["task"] == "owner:loop"
    assert len(tasks) == 0


async def test_a_spawned_task_has_none_of_the_context_of_who_spawned_it() -> None:
    async def seen() -> str:
        return whose.get()

    whose.set("alice")
    assert await TaskSet("shared").spawn(seen(), "look") == "nobody"


async def test_closing_cancels_what_runs_and_refuses_what_comes() -> None:
    tasks = TaskSet("owner")
    endless = tasks.spawn(forever(), "endless")
    await tasks.close()
    assert endless.cancelled()
    assert tasks.healthy
    with pytest.raises(RuntimeError, match="stopping"):
        await tasks.spawn(forever(), "late")
