"""What lies behind an exception. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_MOST: Final = 64


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what lies behind it, each once and the nearest first; into groups; at most 64."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < _MOST:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
        waiting += [one for one in (each.__cause__, each.__context__) if one is not None]
