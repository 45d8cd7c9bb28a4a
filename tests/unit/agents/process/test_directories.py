"""Directories of run processes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from factorychain._process.control import WORDS_SUFFIX, Place
from factorychain_agents.process.directories import RunDirectories, remove_tree
from tests.waiting import until_true


@pytest.fixture
async def directories(tmp_path: Path) -> RunDirectories:
    made = RunDirectories(tmp_path)
    await made.start()
    return made


def made(place: Place) -> Place:
    """As its process makes it."""
    own = place.path / "own"
    own.mkdir(parents=True)
    own.with_suffix(WORDS_SUFFIX).write_text("Fatal error")
    return place


async def test_each_has_a_place_and_nobody_else_can_enter_where_they_are(
    directories: RunDirectories,
) -> None:
    first, second = made(directories.place(1)), made(directories.place(2))
    for each in (directories.own, directories.own.parent):
        assert each.stat().st_mode & 0o777 == 0o700
    directories.remove(first)
    await until_true(lambda: not first.path.exists())
    assert first.words() is None
    words = second.words()
    assert words is not None
    assert words.read_text() == "Fatal error"
    await directories.stop()


async def test_where_a_process_is_cannot_be_told_from_its_number(
    directories: RunDirectories, tmp_path: Path
) -> None:
    again = RunDirectories(tmp_path)
    await again.start()
    places = [each.place(number) for each in (directories, again) for number in (1, 1, 2)]
    names = {each.path.name for each in places}
    assert len(names) == len(places)
    assert all(len(bytes.fromhex(name)) >= 8 for name in names)
    await again.stop()
    await directories.stop()


async def test_a_process_that_died_before_it_made_anything_has_nothing_to_remove(
    directories: RunDirectories, tmp_path: Path
) -> None:
    directories.remove(directories.place(1))
    await directories.stop()
    assert list(tmp_path.iterdir()) == []


async def test_stopping_leaves_nothing(directories: RunDirectories, tmp_path: Path) -> None:
    (made(directories.place(1)).path / "file").write_text("x")
    (directories.shared / "index").write_text("x")
    await directories.stop()
    await directories.stop()
    assert list(tmp_path.iterdir()) == []


async def test_what_a_killed_service_left_goes_and_what_a_living_one_uses_stays(
    directories: RunDirectories, tmp_path: Path
) -> None:
    left = tmp_path / "factorychain-runs-left"
    (left / "own" / "7").mkdir(parents=True)
    other = RunDirectories(tmp_path)
    await other.start()
    assert not left.exists()
    assert directories.own.exists()
    await other.stop()
    await directories.stop()


def test_a_folder_deeper_than_any_path_goes(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    here = Path.cwd()
    os.chdir(top)
    try:
        for _ in range(3000):
            Path("directory").mkdir()
            os.chdir("directory")
            Path("file").touch()
    finally:
        os.chdir(here)
    try:
        remove_tree(top)
        assert list(tmp_path.iterdir()) == []
    finally:  # pytest could not remove what is left
        subprocess.run(["rm", "-rf", *tmp_path.iterdir()], check=True)


def test_a_link_that_leads_out_is_removed_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    top = tmp_path / "top"
    (top / "inner").mkdir(parents=True)
    (top / "inner" / "out").symlink_to(outside)
    (top / "locked").mkdir(mode=0o000)
    remove_tree(top)
    assert not top.exists()
    assert (outside / "kept").exists()
