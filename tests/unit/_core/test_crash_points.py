"""Crash points: each that is listed stands somewhere in the code, and where one is armed a process dies."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from factorychain._core import crash_points
from factorychain._core.crash_points import CRASH_POINTS, crash_point
from factorychain._core.settings import EngineSettings, settings_problem

ROOT = Path(__file__).parents[3]
SOURCES = [*ROOT.glob("services/**/*.py"), *ROOT.glob("factorychain/**/*.py")]

PASSES = """
import sys
from pathlib import Path
from factorychain._core.crash_points import crash_point, die_as_told
die_as_told(Path(sys.argv[1]))
for number in range(1, 4):
    crash_point("engine.place.freed")
    crash_point("engine.start.admitted")
    print(number, flush=True)
"""


def passed_in(source: Path) -> Counter[str]:
    """The names of the places that a file passes."""
    text = source.read_text()
    if "crash_point(" not in text:
        return Counter()
    calls = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "crash_point"
    ]
    literals = [each for call in calls for arg in call.args for each in ast.walk(arg)]
    values = [each.value for each in literals if isinstance(each, ast.Constant)]
    return Counter(each for each in values if isinstance(each, str))


def test_every_crash_point_stands_in_the_code_of_its_service_once() -> None:
    found: Counter[str] = Counter()
    for source in SOURCES:
        names = passed_in(source)
        found += names
        service = source.relative_to(ROOT).parts[1]
        assert all(name.startswith(f"{service}.") for name in names), source
    assert found == Counter(dict.fromkeys(CRASH_POINTS, 1))


def run(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PASSES, str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_process_dies_at_the_pass_that_the_file_names_and_once(tmp_path: Path) -> None:
    file = tmp_path / "crash"
    file.write_text("engine.start.admitted 2")
    died = run(file)
    assert (died.returncode, died.stdout) == (-signal.SIGKILL, "1\n")
    again = run(file)
    assert (again.returncode, again.stdout.split()) == (0, ["1", "2", "3"]), again.stderr


def test_a_place_that_nobody_watches_does_nothing() -> None:
    crash_point("engine.start.admitted")
    heard: list[str] = []
    crash_points.watch(heard.append)
    try:
        crash_point("engine.start.admitted")
    finally:
        crash_points.watch(None)
    crash_point("engine.place.freed")
    assert heard == ["engine.start.admitted"]


def test_only_development_mode_lets_a_process_die(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORYCHAIN_CRASH_FILE", "/tmp/crash")
    with pytest.raises(ValidationError) as caught:
        EngineSettings()
    assert "FACTORYCHAIN_CRASH_FILE" in settings_problem(caught.value)
    monkeypatch.setenv("FACTORYCHAIN_MODE", "development")
    assert EngineSettings().crash_file == Path("/tmp/crash")
