"""A folder of its own for each attempt, and one beside it that belongs to somebody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit._sandbox.confined import Cell, Parent, cell
from tests.unit._sandbox.expected import needs_landlock, needs_seccomp

_EVERYTHING = 6
"""Landlock's first version that rules all that a run is refused."""


@pytest.fixture(scope="package")
def parent() -> Iterator[Parent]:
    it = Parent()
    yield it
    it.close()


@pytest.fixture
def own(parent: Parent, tmp_path: Path) -> Cell:
    needs_landlock(_EVERYTHING)
    needs_seccomp()
    directory = tmp_path / "own"
    directory.mkdir()
    return cell(parent, directory)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Somebody else's folder, with a file `secret`."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "secret").write_text("canary")
    return folder
