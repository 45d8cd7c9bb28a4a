"""Breaks a chain, one fault or two at a time, undoes it, and waits until users are served again.

Invariant: a fault is counted only if the part itself had runs at that moment, and if it hit something: a
process that was there, a link with a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.chain import ChaosChain
from tests.chaos.checker import Break
from tests.chaos.faults import CUT, FREEZE, FULL, KILL, RESTART, SILENCE, Fault
from tests.chaos.forms import layer_of, process_hit
from tests.chaos.in_flight import GAUGES
from tests.chaos.recovery import Recovery, RecoveryWatch
from tests.waiting import until_true

RECOVERED_WITHIN_S: Final = 60.0
_PAUSE_S: Final = (0.3, 1.5)
_UNDER_WAY_S: Final = 10.0
_HANG_SEEN_S: Final = 3.0
"""Whoever looks after a server that hangs has seen it by then; it may have said nothing."""


@dataclass(slots=True)
class Injected:
    """A fault, and what it came to."""

    fault: Fault
    began: float
    runs: int
    """In the part that it hit, when it began."""
    hit: bool = True
    ended: float = 0.0
    paired: bool = False
    recovery: Recovery | None = None

    @property
    def counts(self) -> bool:
        """Whether it hit a part with runs under way."""
        return self.hit and self.runs > 0

    def as_break(self) -> Break:
        """For the checker."""
        return Break(self.fault.kind, self.fault.where, self.began, self.ended or time.time())


@dataclass(slots=True)
class Driver:
    """What does it."""

    chain: ChaosChain
    watch: RecoveryWatch
    in_flight: Callable[[], int]
    tell: Callable[[str], None]
    injected: list[Injected] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Faults after which users were not served again in time."""

    async def run(self, plan: Iterator[tuple[Fault, ...]], seconds: float, seed: str) -> None:
        """Until the time is up."""
        chance = random.Random(f"{seed} pauses")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(chance.uniform(*_PAUSE_S))
            await self._runs_under_way()
            await self._together(next(plan))

    async def _runs_under_way(self) -> None:
        """Return when there is something to hit, or when that takes too long."""
        with contextlib.suppress(TimeoutError):
            await until_true(self.in_flight, _UNDER_WAY_S)

    async def _together(self, faults: tuple[Fault, ...]) -> None:
        runs = [await self._runs_at(each) for each in faults]
        recovery = self.watch.watched = Recovery(time.time())
        done = [
            Injected(fault, recovery.began, at, paired=len(faults) > 1)
            for fault, at in zip(faults, runs, strict=True)
        ]
        self.injected += done
        await asyncio.gather(*(self._inject(each) for each in done))
        recovery.undone()
        for each in done:
            each.recovery = recovery
        words = " + ".join(map(str, faults))
        try:
            async with asyncio.timeout(RECOVERED_WITHIN_S):
                await recovery.done.wait()
        except TimeoutError:
            self.failures.append(f"{words}: NOT SERVED AGAIN in {RECOVERED_WITHIN_S:.0f} s")
            self.tell(self.failures[-1])
            return
        for each in done:
            if each.fault.kind in (KILL, RESTART):  # a process that is there does not yet serve
                each.ended = time.time()
        self.tell(
            f"{words}: {' + '.join(str(each.runs) for each in done)} runs there, "
            f"events again after {recovery.event_s or 0:.1f} s, starts after {recovery.start_s or 0:.1f} s"
        )

    async def _runs_at(self, fault: Fault) -> int:
        process = process_hit(fault.where)
        if layer_of(process) not in GAUGES:  # every run's events go there
            return self.in_flight()
        return await self.chain.runs_at(process)

    async def _inject(self, one: Injected) -> None:
        fault = one.fault
        try:
            if fault.kind in (KILL, RESTART):
                await self._end(fault)
            elif fault.kind == FREEZE:
                await self._freeze(fault)
            elif fault.kind in (CUT, SILENCE):
                one.hit = await self._break_link(fault)
            elif fault.kind == FULL:
                one.hit = await self._fill(fault)
        except ProcessLookupError:
            one.hit = False
        one.ended = time.time()

    async def _end(self, fault: Fault) -> None:
        if fault.kind == KILL:
            pid = await self.chain.signal(fault.where, signal.SIGKILL)
        else:
            pid = await self.chain.pid(fault.where)
            await self.chain.order(do="restart", process=fault.where)
        await self.chain.back(fault.where, pid)

    async def _freeze(self, fault: Fault) -> None:
        pid = await self.chain.signal(fault.where, signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.lasts_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def _break_link(self, fault: Fault) -> bool:
        answer = await self.chain.order(do=fault.kind, link=fault.where)
        try:
            await asyncio.sleep(fault.lasts_s)
        finally:
            await self.chain.order(do="heal", link=fault.where)
        return answer["connections"] != 0

    async def _fill(self, fault: Fault) -> bool:
        """A full disk, until there is room again and the server stores again: one that found none does so
        only when whoever looks after it has started it again.

        Returns:
            Whether it wanted to write meanwhile.

        Raises:
            ChainFailed: it does not come back.
        """
        pid = await self.chain.pid(fault.where)
        disk, before = self.chain.disks[fault.where], self.chain.disk_errors(fault.where)
        disk.fill()
        try:
            await asyncio.sleep(fault.lasts_s)
        finally:
            disk.empty()
        if self.chain.disk_errors(fault.where) > before:
            await self.chain.back(fault.where, pid)
            return True
        await asyncio.sleep(_HANG_SEEN_S)
        await self.chain.back(fault.where, None)
        return False
