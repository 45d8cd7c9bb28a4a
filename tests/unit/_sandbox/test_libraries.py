"""Of a folder that modules are imported from only those are readable."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from factorychain._sandbox.libraries import without_nested
from tests.unit._sandbox.confined import ROOT

TRIES = """
import json, os, sys
sys.path.insert(0, PROJECT)
import early, space.module
from factorychain._sandbox import *
prepare()
open(os.path.join(PROJECT, ".touched"), "w").close()  # so that the importer lists the folder again
confine(Confinement(OWN, {}, keep_descriptors=(0, 1, 2), private_paths=PRIVATE))
def came(call):
    try:
        return call() and "yes"
    except (OSError, ImportError) as error:
        return type(error).__name__
def text(name):
    return lambda: open(os.path.join(PROJECT, name)).read()
found = {name: came(text(name)) for name in NAMES}
found["late"] = came(lambda: __import__("late").found)
found["package.inner"] = came(lambda: __import__("package.inner").inner.found)
found["space.other"] = came(lambda: __import__("space.other").other.found)
found["list"] = came(lambda: os.listdir(PROJECT))
found["list data"] = came(lambda: os.listdir(os.path.join(PROJECT, ".data")))
print(json.dumps(found))
"""


MODULES = "early.py late.py package/__init__.py package/inner.py space/module.py space/other.py"
BESIDE = ".env .local.py secrets.json documents/a.md .data/key .git/config package/data.txt"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """As authors have it: modules, and beside them what is nobody's business."""
    root = tmp_path / "project"
    for folder in ("package", "space", "documents", ".data", ".git"):
        (root / folder).mkdir(parents=True)
    for name in MODULES.split():
        (root / name).write_text("found = True\n")
    for name in BESIDE.split():
        (root / name).write_text("canary")
    return root


def found_in(project: Path, own: Path, private: tuple[str, ...]) -> dict[str, str]:
    names = BESIDE.split()
    values = {"PROJECT": str(project), "OWN": str(own), "PRIVATE": private, "NAMES": names}
    given = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    ended = subprocess.run(
        [sys.executable, "-P", "-c", given + TRIES],
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, str] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize("private", [(), (".data",)])
def test_modules_are_imported_late_and_what_lies_beside_them_is_not_read(
    project: Path, tmp_path: Path, private: tuple[str, ...]
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    found = found_in(project, own, tuple(str(project / each) for each in private))
    assert {name for name, came in found.items() if came == "yes"} == {
        "package/data.txt",
        "late",
        "package.inner",
        "space.other",
        *(() if private else ("list", "list data")),
    }
    assert {came for came in found.values() if came != "yes"} == {"PermissionError"}


def test_paths_within_others_are_left_out(tmp_path: Path) -> None:
    for name in ("a/b", "ab", "a.b"):
        (tmp_path / name).mkdir(parents=True)
    paths = [str(tmp_path / each) for each in ("ab", "a/b", "a", "a.b", "absent")]
    assert without_nested(paths) == tuple(str(tmp_path / each) for each in ("a", "a.b", "ab"))
