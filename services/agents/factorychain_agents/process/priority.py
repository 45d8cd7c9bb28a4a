"""What the kernel gives one process against others: its niceness, or only what nobody else wants.

The least is SCHED_IDLE (sched(7)), which the kernel ranks as a niceness of 20: whoever else wakes up has the
processor at once, instead of when the next tick finds that it has waited for long enough (Linux, EEVDF).

Invariant: what may not be changed stays as it is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

IDLE: Final = 20
"""In place of a niceness: only what nobody else wants."""
_LEAST: Final = 19
_CAP_SYS_NICE: Final = 23
_PASSES: Final = 5
"""Over threads that start threads meanwhile: a new one is as the one that has started it."""


def least_that_can_be_taken_back() -> int:
    """IDLE where this process may undo it, which takes CAP_SYS_NICE, else the highest niceness."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "CapEff":
                return IDLE if int(value, 16) >> _CAP_SYS_NICE & 1 else _LEAST
    return _LEAST


def prioritise(pid: int, nice: int) -> None:
    """Give all threads of a process, and of those that it has started, a niceness of 0 to 19, or `IDLE`.

    Less niceness than before takes privilege; without it they keep what they have.
    """
    seen: set[int] = set()
    for _ in range(_PASSES):
        new = set(_threads(pid)) - seen
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


def _threads(pid: int) -> Iterator[int]:
    """Of a process and its descendants, as far as they can be seen."""
    with contextlib.suppress(OSError):  # it has just ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            yield int(thread.name)
            with contextlib.suppress(OSError):
                for child in (thread / "children").read_text().split():
                    yield from _threads(int(child))
