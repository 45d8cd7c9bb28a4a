"""The limits that are in force: the settings', and what the operator's file of plans says.

Invariant: a change of the file is taken as a whole or not at all. One that cannot be used leaves what was
in force before it in force, and is reported until it is mended. What runs is never ended by a change:
limits are asked for when a place is taken, not afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from factorychain._core.component import TaskSet
from factorychain._core.ids import Principal
from factorychain._core.logging import get_logger
from factorychain._core.metrics import counter, up_down_counter
from factorychain._core.plans import Plans, UserLimits
from factorychain._core.plans_file import PlansUnusable, parse_plans, read_file
from factorychain._core.settings import PREFIX, Misconfigured

log = get_logger(__name__)

LimitsOf: TypeAlias = Callable[[Principal, str], UserLimits]
"""The limits of a user whose token names a plan (empty: none), as they are in force now."""

_looks = counter("factorychain.engine.limits_file", "Changes of the limits' file, by outcome")
_broken = up_down_counter(
    "factorychain.engine.limits_file_broken", "1 while the limits' file cannot be used"
)
_unknown = counter("factorychain.engine.unknown_plans", "Times that a token's plan was not known")

LOOK_S: Final = 1.0
REMIND_LOOKS: Final = 60
"""A file that cannot be used is reported again after so many looks."""
REMEMBERED_USERS: Final = 4096
REPORTED_PLANS: Final = 100
"""So many names of unknown plans are reported."""
VARIABLE: Final = f"{PREFIX}LIMITS_FILE"


class Limits:
    """A component: looks after the file."""

    name = "limits"

    def __init__(self, ground: UserLimits, path: Path | None, look_s: float = LOOK_S) -> None:
        """`ground` is what the settings say; `path` None: nothing else does.

        Raises:
            Misconfigured: the file cannot be used.
        """
        self._ground = ground
        self._path = path
        self._look_s = look_s
        self._plans = Plans()
        self._known: dict[tuple[Principal, str], UserLimits] = {}  # by the plans that are in force
        self._document = b""
        self._problem = ""  # why the file as it is now is not in force
        self._reported = 0
        self._unknown: set[str] = set()
        self._tasks = TaskSet(self.name)
        if path is not None:
            try:
                self._take(read_file(path))
            except PlansUnusable as error:
                raise Misconfigured(f"{VARIABLE}: {path}: {error}") from error

    @property
    def healthy(self) -> bool:
        """Whether it is looked after the file; a broken one takes no engine out of use."""
        return self._tasks.healthy

    def of(self, principal: Principal, claimed: str) -> UserLimits:
        """The limits of a user whose token names the plan `claimed`; empty: none."""
        if self._path is None:
            return self._ground
        limits = self._known.get((principal, claimed))
        if limits is None:
            if len(self._known) >= REMEMBERED_USERS:
                self._known.clear()
            limits = self._plans.of(principal, claimed, self._ground)
            self._known[principal, claimed] = limits
        if claimed and not limits.plan:
            self._is_unknown(claimed)
        return limits

    async def start(self) -> None:
        if self._path is not None:
            _ = self._tasks.spawn(self._look_for_ever(self._path), "look")

    async def stop(self) -> None:
        await self._tasks.close()

    async def look(self) -> None:
        """Take the file as it is now."""
        if self._path is None:
            return
        try:
            # Not in the event loop: it may lie on another machine.
            document = await asyncio.to_thread(read_file, self._path)
            if document == self._document:
                self._is_good()
                return
            self._take(document)
        except PlansUnusable as error:
            self._is_broken(str(error))
            return
        self._is_good()
        _looks.add(1, {"outcome": "taken"})
        log.info(
            "the limits were changed",
            path=str(self._path),
            plans=len(self._plans.plans),
            tenants=len(self._plans.tenants),
        )

    def _is_unknown(self, plan: str) -> None:
        _unknown.add(1)
        if plan not in self._unknown and len(self._unknown) < REPORTED_PLANS:
            self._unknown.add(plan)
            log.warning("a token names a plan that is not defined", plan=plan, variable=VARIABLE)

    def _take(self, document: bytes) -> None:
        self._plans = parse_plans(document)
        self._known.clear()
        self._document = document

    def _is_good(self) -> None:
        if self._problem:
            self._problem = ""
            _broken.add(-1)
            log.info("the limits' file is good again", path=str(self._path))

    def _is_broken(self, problem: str) -> None:
        again = problem == self._problem
        self._reported = self._reported + 1 if again else 0
        if not self._problem:
            _broken.add(1)
        self._problem = problem
        if not again:
            _looks.add(1, {"outcome": "refused"})
        if self._reported % REMIND_LOOKS == 0:
            log.error(
                "the limits' file cannot be used; those before it stay in force",
                path=str(self._path),
                variable=VARIABLE,
                problem=problem,
            )

    async def _look_for_ever(self, path: Path) -> None:
        log.info("limits come from a file", path=str(path))
        while True:
            await asyncio.sleep(self._look_s)
            await self.look()
