"""The product works from a checkout in place, as an editable install and as a wheel.

Each has a virtual environment of its own with everything that is installed here, factorychain excepted.
Every process writes down at its end where it has imported factorychain's packages from.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.command import Command, running_up
from tests.wheel_fixture import LAYERS

# Found by every Python of the environment.
SITECUSTOMIZE = """
import atexit, os, sys

def packages():
    ours = [each for each in list(sys.modules) if each.startswith("factorychain") and "." not in each]
    return sorted(path for each in ours for path in sys.modules[each].__path__)

def write():
    name = next((each for each in sys.orig_argv if each in ("up", "run")), sys.orig_argv[-1])
    with open(os.path.join(os.environ["IMPORTED"], f"{name}.txt"), "w") as file:
        file.write("\\n".join(packages()))

if "IMPORTED" in os.environ:
    atexit.register(write)
"""
QUESTION = "What does the with statement do?"


@dataclass(frozen=True)
class Place:
    """An environment, the command in it, and where each package should come from."""

    python: Path
    command: Command
    packages: set[Path]


def in_checkout(root: Path) -> set[Path]:
    services = {root / "services" / each / f"factorychain_{each}" for each in LAYERS}
    return {root / "factorychain", *services}


def environment(folder: Path) -> Path:
    """A virtual environment with what is installed here, but no factorychain; its Python."""
    installed, dependencies = Path(sysconfig.get_path("purelib")), folder / "dependencies"
    dependencies.mkdir(parents=True)
    for each in installed.iterdir():
        if "factorychain" not in each.name and each.suffix != ".pth":
            (dependencies / each.name).symlink_to(each)
    venv.create(folder / "venv", symlinks=True, with_pip=False)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    (site / "sitecustomize.py").write_text(SITECUSTOMIZE)
    (folder / "imported").mkdir()
    scripts = folder / "venv" / "bin"
    (scripts / "nats-server").symlink_to(Path(sysconfig.get_path("scripts")) / "nats-server")
    return scripts / "python"


def install(python: Path, *what: str) -> None:
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", *options, *what], check=True)


def place(how: str, folder: Path, checkout: Path, wheel: Path) -> Place:
    """The environment of one way to have it, made."""
    python = environment(folder)
    noted = {"IMPORTED": str(folder / "imported")}
    script = [str(python.parent / "factorychain")]
    match how:
        case "in place":
            argv = [str(python), "-m", "factorychain.cli"]
            env = noted | {"PYTHONPATH": str(checkout)}
            return Place(python, Command(folder, argv, env), in_checkout(checkout))
        case "editable":
            install(python, "--editable", str(checkout))
            return Place(python, Command(folder, script, noted), in_checkout(checkout))
        case _:
            install(python, str(wheel))
            (site,) = python.parents[1].glob("lib/python*/site-packages")
            names = ["factorychain", *(f"factorychain_{each}" for each in LAYERS)]
            packages = {site / each for each in names}
            return Place(python, Command(folder, script, noted), packages)


def imported(folder: Path) -> dict[str, set[Path]]:
    """The folders of factorychain's packages that each process imported, by its main module."""
    return {
        each.stem: {Path(line) for line in each.read_text().splitlines()}
        for each in (folder / "imported").iterdir()
    }


@pytest.mark.parametrize("how", ["in place", "editable", "wheel"])
async def test_the_chain_runs_from_where_it_is_installed(
    how: str, tmp_path: Path, checkout: Path, wheel: Path
) -> None:
    installed = place(how, tmp_path, checkout, wheel)
    async with running_up(installed.command, tmp_path / "up") as chain:
        asked = await installed.command(
            "run", "--user", "alice", "--data", str(chain.data), QUESTION
        )
    assert asked.status == 0, asked.err + chain.log()
    assert "topics/with" in asked.out
    processes = imported(tmp_path)
    assert {"up", "run", *(f"factorychain_{each}" for each in LAYERS)} == processes.keys()
    assert set().union(*processes.values()) == installed.packages
