"""Pauses of a loop are told once; so is a component that stops being well, or is well again."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from factorychain._core.component import ComponentGroup
from factorychain._core.watchdog import HealthWatch, Look, LoopBeats


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


def looks(*beats_and_times: tuple[float, float]) -> list[str]:
    beats = LoopBeats(interval_s=0.1, warn_s=0.5, settle_s=2.0)
    found = [beats.look(beat_s, now_s) for beat_s, now_s in beats_and_times]
    return [each.name for each in found if each is not Look.NOTHING]


def test_a_long_pause_is_told_once_and_its_end_when_the_loop_has_settled() -> None:
    assert looks((0.0, 0.5)) == []
    assert looks((0.0, 0.7), (0.0, 5.0), (0.0, 60.0)) == ["HELD_UP"]
    assert looks((0.0, 0.7), (0.8, 0.9), (2.6, 2.6)) == ["HELD_UP"]
    assert looks((0.0, 0.7), (0.8, 0.9), (2.7, 2.7), (2.8, 2.8)) == ["HELD_UP", "GOES_ROUND"]


def test_many_pauses_in_a_row_are_one_disturbance() -> None:
    pauses = [(start, start + 0.7) for start in (0.0, 1.0, 2.0, 3.0)]
    assert looks(*pauses, (4.0, 4.1), (5.7, 5.7)) == ["HELD_UP"] * 4 + ["GOES_ROUND"]


@pytest.mark.parametrize("now_s", [0.0, 0.59])
def test_a_loop_in_time_is_nothing_to_tell(now_s: float) -> None:
    assert looks((0.0, now_s)) == []
