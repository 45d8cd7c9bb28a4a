"""How much the tests of load do: in `make test` enough to see that it holds, in `make soak` all of it."""

from __future__ import annotations

import os
from typing import Final

_FULL: Final = os.environ.get("FACTORYCHAIN_LOAD") == "full"


def amount(short: int, full: int) -> int:
    """The one or the other, for a test that is marked `load`."""
    return full if _FULL else short
