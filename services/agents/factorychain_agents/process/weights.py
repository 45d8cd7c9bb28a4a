"""Runs that keep a processor busy give way to those that say something now and then.

The kernel gives every run the same weight, so that one which wakes up for a moment waits for all that spin.
Here whoever has had the processor lately loses weight, and has it back when it is calm again, as feedback
queues have done since CTSS.

Invariants: a run's weight is never above the operator's; what may not be changed stays as it is; looking
takes a bounded share of this process's time however many runs there are.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from typing import Final

from factorychain_agents.process.priority import Priorities

_BUSY: Final = 0.10
"""Of one processor: above it a run is busy. One that streams a model's answer takes a few percent."""
_CALM: Final = 0.02
"""Below it a busy run is calm again. So far apart, since busy ones get little beside each other."""
_OVER_S: Final = 1.0
"""The time that counts: what was long before that hardly does."""
_EVERY_S: Final = 0.2
_MOST_OF_TIME: Final = 0.01


class Usage:
    """How much of a processor one run has had lately. Pure: told of the time that it has used."""

    __slots__ = ("_at_s", "_cpu_s", "_share", "busy")

    def __init__(self, cpu_s: float, now_s: float) -> None:
        """`cpu_s`: what it has used before its run: the start of a process is not held against it."""
        self._cpu_s = cpu_s
        self._at_s = now_s
        self._share = 0.0
        self.busy = False

    def used(self, cpu_s: float, now_s: float) -> bool:
        """It has used so much in all; whether it is busy."""
        gone_s = now_s - self._at_s
        if gone_s > 0:
            fades = math.exp(-gone_s / _OVER_S)
            self._share = self._share * fades + (cpu_s - self._cpu_s) / gone_s * (1 - fades)
            self._cpu_s, self._at_s = cpu_s, now_s
        self.busy = self._share > (_CALM if self.busy else _BUSY)
        return self.busy


class Weights:
    """Sets what runs get by what they use."""

    def __init__(self, processes: Callable[[], Iterable[int]], priorities: Priorities) -> None:
        """`processes`: pids of the run processes that have a run now."""
        self._processes = processes
        self._priorities = priorities
        self._usage: dict[int, Usage] = {}

    async def keep(self) -> None:
        """Look for ever."""
        while True:
            began_s = time.monotonic()
            self.look(began_s)
            took_s = time.monotonic() - began_s
            await asyncio.sleep(max(_EVERY_S, took_s / _MOST_OF_TIME))

    def look(self, now_s: float) -> None:
        """Look at each process once."""
        there = set(self._processes())
        for gone in self._usage.keys() - there:
            del self._usage[gone]
        for pid in there:
            self._look_at(pid, now_s)

    def _look_at(self, pid: int, now_s: float) -> None:
        try:
            cpu_s = cpu_seconds(pid)
        except OSError:  # it has just ended
            return
        usage = self._usage.get(pid)
        if usage is None:
            self._usage[pid] = Usage(cpu_s, now_s)
            return
        before = usage.busy
        if usage.used(cpu_s, now_s) != before:
            self._priorities.set(pid, busy=usage.busy)


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have used.

    Raises:
        OSError: there is no such process.
    """
    return time.clock_gettime(~pid << 3 | 2)  # as clock_getcpuclockid(3) makes it; CPUCLOCK_SCHED
