"""Processes that a zygote forked and could not hand over before it died.

Nobody knows of them: the packet with their sockets was lost, so they end by themselves, and as this
process's children they would stay as zombies. They are found by their group, which is the zygote's at
first, and by the name that they take before they have one of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from factorychain._process.instance import name_of_forked

_TRIES: Final = 20
_BETWEEN_S: Final = 0.05


async def reap_orphans(zygote: int, known: Set[int]) -> None:
    """End and reap this process's children that a zygote forked, except those that are known."""
    for _ in range(_TRIES):
        found = await asyncio.to_thread(lambda: list(_orphans(zygote)))
        unknown = [each for each in found if each not in known]
        if not unknown:
            return
        for pid in unknown:
            _ = _end(pid)
        await asyncio.sleep(_BETWEEN_S)


async def end_and_reap(pid: int) -> None:
    """End and reap one process that is this process's child, or will be in a moment."""
    for _ in range(_TRIES):
        if _end(pid):
            return
        await asyncio.sleep(_BETWEEN_S)


def _end(pid: int) -> bool:
    """Whether it is reaped."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return False


def _orphans(zygote: int) -> Iterator[int]:
    own, name = os.getpid(), name_of_forked(zygote)
    for each in _processes():
        if each.parent == own and (each.group == zygote or each.name == name):
            yield each.pid


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    name: str
    parent: int
    group: int


def _processes() -> Iterator[_Process]:
    """Every process that can be seen: fields 2, 4 and 5 of /proc/PID/stat (proc(5))."""
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                names, _, rest = (each / "stat").read_text().rpartition(")")
                fields = rest.split()
                name = names.partition("(")[2]
                yield _Process(int(each.name), name, int(fields[1]), int(fields[2]))
