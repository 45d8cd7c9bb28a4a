"""Imports of libraries without what they could use besides, which is never used here.

Every service would wait for it at its start. Invariant: whoever else wants such a library gets it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(name: str) -> Iterator[None]:
    """What is imported inside for the first time goes without the library `name`."""
    before = {each: module for each, module in sys.modules.items() if each == name}
    sys.modules[name] = None  # type: ignore[assignment]  # how the import system says that there is none
    try:
        yield
    finally:
        del sys.modules[name]
        sys.modules.update(before)
