"""What begins at the same moment does not exceed together what an engine takes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from factorychain.errors import Capacity
from factorychain_engine.places.own_room import OwnRoom


def room_of(most: int, runs: int = 0) -> OwnRoom:
    held: Any = [None] * runs
    return OwnRoom(most, held)


def test_places_count_while_they_are_taken() -> None:
    room = room_of(3, runs=1)
    with room.taking():
        assert room.left() == 1
        with room.taking():
            assert room.left() == 0
            with pytest.raises(Capacity) as refused, room.taking():
                pytest.fail("there is no room")
            assert refused.value.retry_after_s
        assert room.left() == 1
    assert room.left() == 2


def test_one_that_is_not_stored_after_all_leaves_its_room() -> None:
    room = room_of(1)
    with pytest.raises(OSError), room.taking():
        raise OSError
    assert room.left() == 1


def test_more_may_be_adopted_than_there_is_room_for() -> None:
    assert room_of(2, runs=3).left() == 0


def test_without_a_limit_nobody_is_refused() -> None:
    room = room_of(0, runs=9)
    with ExitStack() as several:
        for _ in range(9):
            several.enter_context(room.taking())
        assert room.left() is None
