"""A full replica says when there is likely to be room, by how runs have ended lately."""

from __future__ import annotations

import pytest

from factorychain_agents.room import LEAST_S, MOST_S, UNKNOWN_S, Room


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_there_is_room_until_as_many_run_as_fit() -> None:
    room = Room(2, Clock())
    seen = []
    for step in (room.came, room.came, room.left):
        step()
        seen.append((room.running, room.is_full, room.free_in_s()))
    assert seen == [(1, False, 0), (2, True, UNKNOWN_S), (1, False, 0)]


@pytest.mark.parametrize(("every_s", "said_s"), [(2.0, 2.0), (0.01, LEAST_S), (600.0, MOST_S)])
def test_a_place_is_expected_after_as_long_as_between_the_last_endings(
    every_s: float, said_s: float
) -> None:
    clock = Clock()
    room = Room(1, clock)
    for _ in range(100):
        room.came()
        clock.now_s += every_s
        room.left()
    room.came()
    # The first of those that are remembered is the beginning of the time that is looked at.
    assert room.free_in_s() == pytest.approx(said_s, rel=0.05)


def test_what_has_not_ended_for_long_is_expected_later() -> None:
    clock = Clock()
    room = Room(1, clock)
    room.came()
    room.left()
    room.came()
    clock.now_s += 10
    assert room.free_in_s() == pytest.approx(10)
