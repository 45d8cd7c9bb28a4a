"""build-image, with a docker that only says how it was called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A repository with what the script reads, and a fake docker."""
    for name in ("pyproject.toml", "deploy/build-image", "deploy/wheels/.gitignore"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for path, target in ((".venv/bin/python", sys.executable), ("bin/docker", "/bin/echo")):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).symlink_to(target)
    return tmp_path


def build(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{copy / 'bin'}:{os.environ['PATH']}"}
    command = [str(copy / "deploy" / "build-image"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=60, check=False
    )


def test_it_builds_the_image_of_this_version_from_the_root(copy: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    done = build(copy)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"build --file deploy/Dockerfile --tag factorychain:{version} .",
        f"Built factorychain:{version}",
    ]


def test_base_image_tag_and_network_are_passed_on(copy: Path) -> None:
    done = build(copy, "--base-image", "debian:own", "--tag", "x:1", "--network", "host")
    called = "build --file deploy/Dockerfile --tag x:1 --build-arg BASE_IMAGE=debian:own --network host ."
    assert done.stdout.splitlines()[0] == called


def test_wheels_of_an_earlier_build_are_not_used(copy: Path) -> None:
    old = copy / "deploy" / "wheels" / "old-1.0-py3-none-any.whl"
    old.touch()
    assert build(copy).returncode == 0
    assert not old.exists()


@pytest.mark.parametrize("arguments", [["--wheel"], ["--tag"]])
def test_a_wrong_option_builds_nothing(copy: Path, arguments: list[str]) -> None:
    done = build(copy, *arguments)
    assert done.returncode != 0
    assert done.stdout == ""
    assert arguments[0] in done.stderr


def test_without_an_environment_it_says_how_to_make_one(copy: Path) -> None:
    (copy / ".venv" / "bin" / "python").unlink()
    done = build(copy)
    assert done.returncode == 1
    assert "make setup" in done.stderr
