"""What the kernel gives one run against others: its niceness, or only what nobody else wants.

The latter is a control group of all such runs (`idle_group`) where the service may make one, else
SCHED_IDLE (sched(7)), which the kernel ranks as a niceness of 20.

Invariant: what may not be changed stays as it is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from factorychain_agents.process.idle_group import IdleGroup

IDLE: Final = 20
"""In place of a niceness: only what nobody else wants."""
_LEAST: Final = 19
_CAP_SYS_NICE: Final = 23
_PASSES: Final = 5
"""Over threads that start threads meanwhile: a new one is as the one that has started it."""


class Priorities:
    """How much processes of runs get, calm ones and busy ones."""

    def __init__(self, calm_nice: int, busy_nice: int, group: IdleGroup | None) -> None:
        """To be closed.

        Args:
            calm_nice: niceness of those that leave processors to others.
            busy_nice: of those that don't, if it is more; `IDLE` counts as 19 where that could not be undone.
            group: for busy ones that are to have what nobody else wants.
        """
        self._calm_nice = calm_nice
        self._busy_nice = max(calm_nice, min(busy_nice, least_that_can_be_taken_back()))
        self._group = group

    @classmethod
    def made(cls, calm_nice: int, busy_nice: int) -> Priorities:
        """With a group where it is wanted and can be made."""
        return cls(calm_nice, busy_nice, IdleGroup.made() if busy_nice >= IDLE else None)

    def set(self, pid: int, *, busy: bool) -> None:
        """For a process, and all that it has started."""
        moved = self._group is not None and _moved(self._group, pid, busy=busy)
        if not (busy and moved):  # who is calm again may have been denied the group before
            _prioritise(pid, self._busy_nice if busy else self._calm_nice)

    async def close(self) -> None:
        """When no process is left."""
        if self._group is not None:
            await self._group.close()


def _moved(group: IdleGroup, pid: int, *, busy: bool) -> bool:
    processes = [pid, *_descendants(pid)]
    try:
        if busy:
            group.add(processes)
        else:
            group.bring_back(processes)
    except OSError:  # somebody else has removed it, or its rules have changed
        return False
    return True


def least_that_can_be_taken_back() -> int:
    """IDLE where this process may undo it, which takes CAP_SYS_NICE, else the highest niceness."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "CapEff":
                return IDLE if int(value, 16) >> _CAP_SYS_NICE & 1 else _LEAST
    return _LEAST


def _prioritise(pid: int, nice: int) -> None:
    """Less niceness than before takes privilege; without it threads keep what they have."""
    seen: set[int] = set()
    for _ in range(_PASSES):
        new = {thread for each in (pid, *_descendants(pid)) for thread in _threads(each)} - seen
        if not new:
            return
        for thread in new:
            _set(thread, nice)
        seen |= new


def _set(thread: int, nice: int) -> None:
    policy = os.SCHED_IDLE if nice >= IDLE else os.SCHED_OTHER
    with contextlib.suppress(OSError):
        os.sched_setscheduler(thread, policy, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, min(nice, _LEAST))


def _descendants(pid: int) -> Iterator[int]:
    """As far as they can be seen."""
    for thread in _threads(pid):
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
                yield int(child)
                yield from _descendants(int(child))


def _threads(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):  # it has just ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            yield int(thread.name)
