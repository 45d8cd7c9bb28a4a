"""What of the agents' code is watched, and when a change of it is told."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from factorychain.local import sources
from factorychain.local.sources import SourceWatcher, TooManyFiles, agent_sources, snapshot
from tests.waiting import until_true


def written(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_agents_are_found_as_modules_and_packages_without_importing_them(tmp_path: Path) -> None:
    here, library = tmp_path / "here", tmp_path / "library"
    greeter = written(here / "greeter.py", "raise AssertionError")
    written(library / "greeter.py")
    written(library / "support" / "__init__.py", "raise AssertionError")
    written(library / "support" / "billing.py")
    modules = ["greeter:Greeter", "support.billing", "nowhere.at.all", "greeter"]
    assert agent_sources(modules, here, [str(library)]) == [greeter, library / "support"]


def test_pythonpath_and_what_is_installed_come_after_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = written(tmp_path / "library" / "greeter.py")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'none'}{os.pathsep}{module.parent}")
    monkeypatch.setattr(sys, "path", [])
    assert agent_sources(["greeter"], tmp_path / "here") == [module]


def test_environments_hidden_folders_and_other_files_are_not_watched(tmp_path: Path) -> None:
    own = {written(tmp_path / name) for name in ("a.py", "deep/er/b.py")}
    for name in (".git/c.py", "__pycache__/d.py", "node_modules/e.py", "notes.md"):
        written(tmp_path / name)
    written(tmp_path / "venv" / "pyvenv.cfg")
    written(tmp_path / "venv" / "lib" / "f.py")
    single = written(tmp_path.parent / f"{tmp_path.name}-single.py")
    assert set(snapshot([tmp_path, single])) == own | {single}


def test_a_folder_with_too_much_below_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MOST_FILES", 2)
    for number in range(3):
        written(tmp_path / f"{number}.py")
    with pytest.raises(TooManyFiles, match=f"{tmp_path} has more than 2 Python files"):
        SourceWatcher([tmp_path])
    many = tmp_path / "many"
    for number in range(21):
        written(many / f"{number}.txt")
    with pytest.raises(TooManyFiles, match="more than 20 files"):
        SourceWatcher([many])


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text("longer"),
        lambda path: path.unlink(),
        lambda path: path.rename(path.with_name("z.py")),
        lambda path: written(path.with_name("older.txt"), "same").rename(path),
    ],
)
def test_a_change_is_told_once_when_it_has_settled(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    path = written(tmp_path / "a.py", "same")
    watcher = SourceWatcher([tmp_path])
    assert watcher.look(snapshot([tmp_path])) is None
    before = path.stat()
    change(path)
    if path.exists():  # an old time, as a tool that keeps times would leave it
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    now = snapshot([tmp_path])
    told = [watcher.look(now) for _ in range(3)]
    assert told[0] is None
    assert told[1] in {path, tmp_path / "z.py"}
    assert told[2] is None


def test_a_file_that_goes_on_changing_is_waited_for(tmp_path: Path) -> None:
    path = written(tmp_path / "a.py")
    watcher = SourceWatcher([tmp_path])
    for text in ("x", "xx", "xxx"):
        path.write_text(text)
        assert watcher.look(snapshot([tmp_path])) is None
    assert watcher.look(snapshot([tmp_path])) == path


def test_a_change_that_is_undone_meanwhile_is_none(tmp_path: Path) -> None:
    watcher = SourceWatcher([tmp_path])
    passing = written(tmp_path / "passing.py")
    assert watcher.look(snapshot([tmp_path])) is None
    passing.unlink()
    assert [watcher.look(snapshot([tmp_path])) for _ in range(2)] == [None, None]


async def test_it_looks_by_itself_until_it_is_cancelled(tmp_path: Path) -> None:
    path = written(tmp_path / "a.py")
    told: list[Path] = []
    watcher = SourceWatcher([tmp_path], interval_s=0.01)
    task = asyncio.create_task(watcher.run(told.append))
    path.write_text("changed")
    await until_true(lambda: told == [path])
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
