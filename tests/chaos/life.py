"""Users live with one form of a chain while it is broken, and what they saw is judged.

Invariant: nothing that failed on the way is forgotten: what a user or the driver raised, and users who did
not come to an end, make the outcome bad.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tests.chaos.chain import BACK_S, READY_S, STOPPED_S, ChaosChain, chaos_chain
from tests.chaos.checker import check
from tests.chaos.driver import RECOVERED_WITHIN_S, Driver, Injected
from tests.chaos.faults import FULL, all_faults, in_turn
from tests.chaos.findings import Findings
from tests.chaos.forms import LAYERS, Form, layer_of, process_hit
from tests.chaos.options import Options
from tests.chaos.recovery import RecoveryWatch
from tests.chaos.report import report
from tests.chaos.user import Habits, User
from tests.chaos.watchdog import Watchdog, show_tasks

LAST_RUNS_S: Final = 120.0
LONG_S: Final = 240.0
"""A form that is broken for so long leaves nothing to chance."""
_GRACE_S: Final = 30.0
_ENVIRONMENT: Final = {
    "FACTORYCHAIN_FRAMES_PER_S": "1000",
    "FACTORYCHAIN_FRAMES_BURST": "1000",
    "FACTORYCHAIN_LOG_FORMAT": "json",
    # What an engine that is gone has held is found sooner, and with it the places of its users.
    "FACTORYCHAIN_HEARTBEAT_TTL_S": "3",
    "FACTORYCHAIN_CLEANUP_INTERVAL_S": "1",
}


class FaultImpossible(Exception):
    """A fault that was asked for cannot be done on this machine."""


def untried(
    findings: Findings,
    injected: Sequence[Injected],
    every: Sequence[tuple[str, str]],
    seconds: float,
) -> list[str]:
    """What a run of that length has to have tried, and has not. `every`: kinds and parts that it was to break."""
    if seconds < LONG_S:
        return []
    counted = [(each.fault.kind, each.fault.where) for each in injected if each.counts]
    missed = [f"no fault of the kind {each} counted" for each in _kinds(every) - _kinds(counted)]
    missed += [
        f"no fault at the layer {each} counted" for each in _layers(every) - _layers(counted)
    ]
    if not findings.answers_across:
        missed.append("no question that was open while something broke was answered")
    return sorted(missed)


def _kinds(faults: Sequence[tuple[str, str]]) -> set[str]:
    return {kind for kind, _ in faults}


def _layers(faults: Sequence[tuple[str, str]]) -> set[str]:
    """Those that have processes: an edge is hit by so few faults that chance may leave it out."""
    return {layer_of(process_hit(where)) for _, where in faults} & set(LAYERS)


@dataclass(slots=True)
class Outcome:
    """What it came to."""

    findings: Findings
    faults: int
    """That hit a part which had runs."""
    failures: list[str] = field(default_factory=list)
    skipped: tuple[str, ...] = ()
    """Kinds of faults that cannot be done on this machine."""

    @property
    def good(self) -> bool:
        """Whether every promise was kept, and put to the test at all."""
        return self.findings.good and not self.failures and self.faults > 0


@dataclass(slots=True)
class Life:
    """One form, for some seconds."""

    form: Form
    options: Options
    seconds: float
    folder: Path
    watchdog: Watchdog
    tell: Callable[[str], None]
    failures: list[str] = field(default_factory=list)
    skipped: tuple[str, ...] = ()

    async def lead(self) -> Outcome:
        """All of it."""
        options = self.options
        env = {**_ENVIRONMENT, "FACTORYCHAIN_LOG_LEVEL": options.log_level}
        has_disk = bool(self.form.stores) and FULL in options.kinds
        disk_bytes = options.disk_mib * 1024 * 1024 if has_disk else 0
        self.tell(f"{self.form.name}: seed {options.seed}, logs in {self.folder}; the chain starts")
        self.watchdog.phase("starting the chain", READY_S + STOPPED_S + _GRACE_S)
        async with chaos_chain(self.form, self.folder, env, disk_bytes) as chain:
            if disk_bytes and not chain.disks:
                self.skip_full_disk()
            driver = await self._break(chain)
            for name, disk in chain.disks.items():
                self.tell(f"the store of {name} took {disk.used_bytes / 1e6:.0f} MB")
            self.watchdog.phase("stopping the chain", STOPPED_S + _GRACE_S)
        self.tell("checking")
        self.watchdog.phase("checking", _GRACE_S + self.seconds)
        breaks = [each.as_break() for each in driver.injected]
        findings = check(sorted(self.folder.glob("seen-*.jsonl")), chain.terminals, breaks)
        every = all_faults(self.form, self.options.kinds, self.options.parts)
        missed = untried(findings, driver.injected, every, self.seconds)
        failures = [*self.failures, *driver.failures, *missed]
        report(findings, driver.injected, failures, self.tell)
        counted = sum(each.counts for each in driver.injected)
        return Outcome(findings, counted, failures, self.skipped)

    def skip_full_disk(self) -> None:
        """
        Raises:
            FaultImpossible: it was asked for by name.
        """
        words = "mounting a tmpfs is not allowed here: no full disk"
        if self.options.kinds_named:
            raise FaultImpossible(words)
        self.tell(f"NOT TRIED: {words}")
        self.skipped = (FULL,)
        kinds = tuple(each for each in self.options.kinds if each != FULL)
        self.options = replace(self.options, kinds=kinds)

    async def _break(self, chain: ChaosChain) -> Driver:
        options = self.options
        watch, done = RecoveryWatch(), asyncio.Event()
        users = [self._user(chain, index, watch) for index in range(options.users)]
        driver = Driver(chain, watch, lambda: sum(each.in_flight for each in users), self.tell)
        lives = [asyncio.create_task(each.live(done), name=each.name) for each in users]
        every = all_faults(self.form, options.kinds, options.parts)
        plan = in_turn(options.seed, every, options.shortest_s, options.longest_s)
        last_fault_s = options.longest_s + BACK_S + RECOVERED_WITHIN_S + _GRACE_S
        self.watchdog.phase("breaking the chain", self.seconds + last_fault_s)
        driving = asyncio.create_task(driver.run(plan, self.seconds, options.seed))
        try:
            await asyncio.wait({driving, *lives}, return_when=asyncio.FIRST_COMPLETED)
            for each in lives:
                if each.done():
                    each.result()
            driving.result()
            done.set()
            self.tell(f"{driver.in_flight()} last runs")
            self.watchdog.phase("the last runs", LAST_RUNS_S + _GRACE_S)
            await self._end(lives)
        finally:
            for each in [driving, *lives]:
                each.cancel()
            await asyncio.gather(driving, *lives, return_exceptions=True)
        return driver

    def _user(self, chain: ChaosChain, index: int, watch: RecoveryWatch) -> User:
        habits = Habits(self.options.steps, self.options.pause_ms, rest_s=self.options.rest_s)
        return User(
            chain.edges, chain.token, f"u{index}", self.folder, habits, self.options.seed, watch,
            lanes=1 + index % 2,
        )  # fmt: skip

    async def _end(self, lives: list[asyncio.Task[None]]) -> None:
        """Everybody comes to an end."""
        ended, hanging = await asyncio.wait(lives, timeout=LAST_RUNS_S)
        for each in ended:
            each.result()
        if not hanging:
            return
        names = ", ".join(sorted(each.get_name() for each in hanging))
        self.failures.append(f"users who came to no end in {LAST_RUNS_S:.0f} s: {names}")
        show_tasks(asyncio.all_tasks())
