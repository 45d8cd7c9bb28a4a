from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from factorychain.local.store_room import FULL_BYTES, ROOM_BYTES, StoreRoom

FOUND_NONE = "[7] [ERR] Critical write error: write /data/nats/1.blk: no space left on device\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "nats.log"


def append(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)


def test_what_the_server_has_met_stands_in_its_log(log: Path) -> None:
    room = StoreRoom(log, log.parent)
    assert not room.found_none()
    append(log, "[7] [INF] Server is ready\n")
    assert not room.found_none()
    append(log, FOUND_NONE)
    assert room.found_none()
    append(log, "[7] [INF] something else\n")
    assert room.found_none()


def test_it_is_found_in_a_line_that_is_read_in_pieces(log: Path) -> None:
    room = StoreRoom(log, log.parent)
    for letter in FOUND_NONE:
        append(log, letter)
        found = room.found_none()
    assert found


def test_what_an_earlier_server_has_met_counts_for_nothing(log: Path) -> None:
    append(log, FOUND_NONE)
    room = StoreRoom(log, log.parent)
    assert not room.found_none()
    append(log, FOUND_NONE)
    assert room.found_none()
    append(log, FOUND_NONE)
    room.forget()
    assert not room.found_none()


def test_a_log_that_was_cut_is_read_from_its_beginning(log: Path) -> None:
    append(log, 2 * FOUND_NONE)
    room = StoreRoom(log, log.parent)
    log.write_text(FOUND_NONE)
    assert room.found_none()


@pytest.mark.parametrize(
    ("free_bytes", "files", "free_files", "found_none", "has_room"),
    [
        (ROOM_BYTES, 10, 1, False, True),
        (ROOM_BYTES, 0, 0, False, True),  # it does not count files
        (ROOM_BYTES - 1, 10, 1, False, False),
        (FULL_BYTES - 1, 10, 1, True, False),
        (ROOM_BYTES, 10, 0, True, False),
    ],
)
def test_one_that_hangs_says_nothing_so_that_a_full_disk_is_enough(
    monkeypatch: pytest.MonkeyPatch,
    log: Path,
    free_bytes: int,
    files: int,
    free_files: int,
    found_none: bool,
    has_room: bool,
) -> None:
    said = SimpleNamespace(f_bavail=free_bytes, f_frsize=1, f_files=files, f_favail=free_files)
    monkeypatch.setattr(os, "statvfs", lambda _: said)
    room = StoreRoom(log, log.parent)
    assert room.found_none() is found_none
    assert room.has_room() is has_room
    said.f_bavail, said.f_favail = ROOM_BYTES, 1
    assert room.found_none() is found_none
    assert room.has_room()


def test_a_store_that_is_not_there_has_no_room(log: Path) -> None:
    assert not StoreRoom(log, log.parent / "gone").has_room()
