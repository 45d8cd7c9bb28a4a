"""A small disk for a test that fills it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos.disk import Disk


@contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[Disk]:
    """At `path`, for as long as it is entered; the test is skipped where mounting is not allowed."""
    disk = Disk(path, size_bytes)
    if not disk.mount():
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        yield disk
    finally:
        disk.unmount()
