"""What someone who installs this gets: locked requirements and typed packages."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
LOCKS = ["runtime", "dev"]


def locked(name: str) -> dict[str, str]:
    """The block of each requirement in a lock, by normalised name."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    blocks = re.split(r"\n(?=[A-Za-z0-9])", "\n" + text)
    return {block.split("==")[0].lower(): block for block in blocks if "==" in block}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~ ;]", each)[0].lower() for each in requirements}


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_requirement_has_an_exact_version_and_a_hash(name: str) -> None:
    blocks = locked(name)
    assert len(blocks) > 20
    assert [each for each, block in blocks.items() if "--hash=sha256:" not in block] == []


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_place_to_download_from(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert re.search(r"://|--index|--find-links|--trusted-host|^-e ", text, re.MULTILINE) is None


def test_the_locks_hold_what_the_project_asks_for() -> None:
    project = PROJECT["project"]
    assert names(project["dependencies"]) - locked("runtime").keys() == set()
    everything = [each for extra in project["optional-dependencies"].values() for each in extra]
    wanted = names(project["dependencies"] + everything) - {project["name"]}
    assert wanted - locked("dev").keys() == set()


def test_both_locks_agree_on_versions() -> None:
    runtime, dev = locked("runtime"), locked("dev")
    versions = {name: (block.split()[0], dev[name].split()[0]) for name, block in runtime.items()}
    assert {name: pair for name, pair in versions.items() if pair[0] != pair[1]} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()
    assert (ROOT / package / "__init__.py").exists()


def test_tools_and_installs_see_the_same_folders() -> None:
    folders = PROJECT["tool"]["hatch"]["build"]["dev-mode-dirs"]
    assert PROJECT["tool"]["pytest"]["ini_options"]["pythonpath"] == folders
    mypy_path = PROJECT["tool"]["mypy"]["mypy_path"].split(":")
    assert [each.removeprefix("$MYPY_CONFIG_FILE_DIR").strip("/") or "." for each in mypy_path] == (
        folders
    )
