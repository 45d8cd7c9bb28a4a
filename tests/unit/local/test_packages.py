"""Children run the same code as their parent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from factorychain.local.packages import with_this_code


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with two layers; where its own package lies."""
    for each in ("agents", "engine"):
        (tmp_path / "services" / each / f"factorychain_{each}").mkdir(parents=True)
    (tmp_path / "services" / "README").touch()
    return tmp_path / "factorychain" / "__init__.py"


def test_a_checkout_comes_first_on_the_path(checkout: Path) -> None:
    root = checkout.parents[1]
    env = with_this_code({"A": "1", "PYTHONPATH": "/mine"}, str(checkout))
    services = root / "services"
    expected = [root, services / "agents", services / "engine", "/mine"]
    assert env == {"A": "1", "PYTHONPATH": os.pathsep.join(map(str, expected))}


def test_a_checkout_needs_no_path_to_begin_with(checkout: Path) -> None:
    path = with_this_code({}, str(checkout))["PYTHONPATH"]
    assert path.split(os.pathsep)[0] == str(checkout.parents[1])
    assert not path.endswith(os.pathsep)


def test_an_installed_package_leaves_the_environment_as_it_is(tmp_path: Path) -> None:
    for each in ("factorychain", "factorychain_engine"):
        (tmp_path / each).mkdir()
    installed = str(tmp_path / "factorychain" / "__init__.py")
    assert with_this_code({"PYTHONPATH": "/mine"}, installed) == {"PYTHONPATH": "/mine"}
    assert with_this_code({}, installed) == {}
