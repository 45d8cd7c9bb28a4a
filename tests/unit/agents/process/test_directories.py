"""Directories of run processes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from factorychain_agents.process.directories import RunDirectories, remove_tree


@pytest.fixture
async def directories(tmp_path: Path) -> RunDirectories:
    made = RunDirectories(tmp_path)
    await made.start()
    return made


async def test_each_has_a_place_to_work_that_nobody_else_can_enter(
    directories: RunDirectories,
) -> None:
    first, second = directories.make(1), directories.make(2)
    assert first != second
    for each in (first, first / "work", directories.own, directories.own.parent):
        assert each.stat().st_mode & 0o777 == 0o700
    await directories.remove(first)
    assert not first.exists()
    assert second.exists()
    await directories.stop()


async def test_stopping_leaves_nothing(directories: RunDirectories, tmp_path: Path) -> None:
    (directories.make(1) / "work" / "file").write_text("x")
    (directories.shared / "index").write_text("x")
    await directories.stop()
    await directories.stop()
    assert list(tmp_path.iterdir()) == []


async def test_what_a_killed_service_left_goes_and_what_a_living_one_uses_stays(
    directories: RunDirectories, tmp_path: Path
) -> None:
    left = tmp_path / "factorychain-runs-left"
    (left / "own" / "7" / "work").mkdir(parents=True)
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
