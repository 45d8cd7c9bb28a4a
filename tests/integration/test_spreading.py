"""What spreads the tests of `make test`: all run once, in their order, and one that dies is a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.command import ROOT

FILES = {
    "test_one": """
        def test_waits(): noted("one-waits", until="two-waits")
        def test_dies(): os._exit(7)
        def test_goes_on(capfd): os.write(1, b"x"); assert capfd.readouterr().out == "x"
    """,
    "test_two": """
        def test_waits(): noted("two-waits", until="one-waits")
        def test_fails(tmp_path): print("said before"); assert str(tmp_path) == ""
        @pytest.mark.alone
        def test_alone(): assert not list(NOTES.iterdir()); noted("alone")
    """,
}
HEAD = """
import os, pathlib, pytest, time
NOTES = pathlib.Path(__file__).parent / "notes"
def noted(name, until=None):
    (NOTES / name).write_text(str(os.getpid()))
    while until and not (NOTES / until).exists():
        time.sleep(0.01)
"""


def test_tests_are_spread_and_one_that_dies_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    for name, tests in FILES.items():
        (tmp_path / f"{name}.py").write_text(HEAD + tests.replace("\n        ", "\n"))
    config = ("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path))
    own = ("-p", "no:cacheprovider", "--basetemp", str(tmp_path / "base"))
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.spreading", "--spread", "2", *config, *own, "-q", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "2 failed, 4 passed" in ran.stdout, ran.stdout
    assert "test_one.py::test_dies" in ran.stdout
    assert "the process ended with status 7 while it ran this test" in ran.stdout
    assert "test_two.py::test_fails" in ran.stdout
    assert "said before" in ran.stdout
    pids = [(tmp_path / "notes" / each).read_text() for each in ("alone", "one-waits", "two-waits")]
    assert len(set(pids)) == 3
