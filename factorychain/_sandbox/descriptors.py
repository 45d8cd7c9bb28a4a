"""Closes what a process inherited: everything but what is named."""

from __future__ import annotations

import os
from collections.abc import Iterable

_LAST = 2**31 - 1


def close_all_but(keep: Iterable[int]) -> None:
    """Closes every descriptor but these. Of 0, 1 and 2 those not named become /dev/null, so that no
    file opened later is taken for standard output.

    Raises:
        OSError: one to keep is not open.
    """
    kept = sorted(set(keep))
    for descriptor in kept:
        os.fstat(descriptor)
    _null([each for each in range(3) if each not in kept])
    start = 3
    for descriptor in [each for each in kept if each > 2]:
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, _LAST)


def _null(descriptors: list[int]) -> None:
    if not descriptors:
        return
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
