"""The zygote, seen from the service: started, watched, replaced.

Invariant: what was asked of a zygote that died is told to be failed; the runs that it had forked go on,
since they are this process's children. A new one is started with a growing delay.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol, cast

from factorychain._core.component import TaskSet
from factorychain._core.logging import get_logger
from factorychain._core.metrics import counter
from factorychain._process import control
from factorychain._process.control import ForkRequest, Place, Prepared, Setup
from factorychain.input import Json
from factorychain.local.process import Restarts
from factorychain_agents.process.child import Child, known
from factorychain_agents.process.orphans import end_and_reap, reap_orphans
from factorychain_agents.process.zygote_life import ZygoteFailed, ZygoteLife

log = get_logger(__name__)

_deaths = counter("factorychain.agents.zygote.deaths", "Zygotes that died", "{process}")

_AT_ONCE: Final = 16
_BRIDGED_S: Final = 5.0


class Births(Protocol):
    """Hears what became of places for which processes were asked."""

    def born(self, number: int, child: Child, end: socket.socket) -> None: ...

    def stillborn(self, number: int, why: str) -> None: ...


class Zygote:
    """A component: the process that run processes are forked from."""

    name = "zygote"

    def __init__(self, setup: Setup, environment: Mapping[str, str]) -> None:
        """`environment` is all that it is started with."""
        self.prepared = Prepared()
        self.unforkable: dict[str, str] = {}
        """Agents that cannot be run in a fork of it, and why."""
        self._setup = setup
        self._environment = environment
        self._life: ZygoteLife | None = None
        self._asked: dict[int, Births] = {}
        self._restarts = Restarts()
        self._tasks = TaskSet(self.name)
        self._died_at_s = -math.inf

    @property
    def healthy(self) -> bool:
        """Whether it is there, or will be in a moment: processes that it has forked bridge that."""
        if self.there:
            return True
        return self._tasks.healthy and time.monotonic() - self._died_at_s < _BRIDGED_S

    @property
    def there(self) -> bool:
        return self._life is not None and not self._life.over.is_set()

    @property
    def pid(self) -> int | None:
        """Of the one that there is."""
        return self._life.pid if self._life is not None else None

    async def start(self) -> None:
        """Returns when it is ready to fork.

        Raises:
            ZygoteFailed: it did not become ready.
        """
        await self._begin()
        _ = self._tasks.spawn(self._replace(), "watch")

    async def stop(self) -> None:
        await self._tasks.close()
        if self._life is not None:
            await self._life.stop()
        self._fail_all("the service stops")

    def fork(self, places: Sequence[Place], confinement: str, births: Births) -> None:
        """Ask for processes; `births` hears of each, sooner or later."""
        for at in range(0, len(places), _AT_ONCE):
            some = tuple(places[at : at + _AT_ONCE])
            self._asked |= {each.id: births for each in some}
            if self._life is None or not self._life.ask(ForkRequest(some, confinement)):
                for each in some:
                    self._told_failed(each.id, "the zygote is away")

    async def _begin(self) -> None:
        while True:
            life = self._new_life()
            self._restarts.started(time.monotonic())
            prepared = await life.ready()
            if not prepared.unforkable:
                self._life = life
                self.prepared = replace(
                    prepared, missing={**self.prepared.missing, **prepared.missing}
                )
                return
            await life.stop()
            self._leave_out(prepared)

    def _new_life(self) -> ZygoteLife:
        try:
            return ZygoteLife(self._setup, self._environment, self._told)
        except OSError as error:
            raise ZygoteFailed(f"its process cannot be started: {error}") from error

    def _leave_out(self, prepared: Prepared) -> None:
        """Go on without agents that a zygote cannot fork: each run of theirs is started anew."""
        for name, why in prepared.unforkable.items():
            log.warning(
                "the agent cannot be forked, so a process is started for each of its runs: slower",
                agent=name,
                why=why,
            )
        self.unforkable |= prepared.unforkable
        self.prepared = prepared
        left = tuple(each for each in self._setup.agents if each.name not in self.unforkable)
        elsewhere = {name: f"it cannot be forked: {why}" for name, why in self.unforkable.items()}
        elsewhere |= self._setup.elsewhere
        self._setup = replace(self._setup, agents=left, elsewhere=elsewhere)

    async def _replace(self) -> None:
        while True:
            assert self._life is not None, "start has begun it"
            await self._life.over.wait()
            self._died_at_s = time.monotonic()
            self._fail_all("the zygote died")
            _deaths.add(1)
            log.error("the zygote died and is replaced; runs go on", ended=self._life.how)
            await reap_orphans(self._life.pid, known)
            await asyncio.sleep(self._restarts.next_delay_s(time.monotonic()))
            try:
                await self._begin()
            except ZygoteFailed as error:
                log.error("the zygote could not be replaced", error=str(error))

    def _told(self, message: dict[str, Json], fds: Sequence[int]) -> None:
        number = cast("int", message.get("forked", message.get("failed")))
        births = self._asked.pop(number, None)
        if births is None or len(fds) != 2:
            control.close(fds)
            why = message.get("error", "there is no room for its descriptors (RLIMIT_NOFILE)")
            if "pid" in message:
                _ = self._tasks.spawn(end_and_reap(cast("int", message["pid"])), "reap")
            if births is not None:
                births.stillborn(number, str(why))
            return
        end = socket.socket(fileno=fds[0])
        births.born(number, Child(cast("int", message["pid"]), fds[1]), end)

    def _told_failed(self, number: int, why: str) -> None:
        births = self._asked.pop(number, None)
        if births is not None:
            births.stillborn(number, why)

    def _fail_all(self, why: str) -> None:
        for number in list(self._asked):
            self._told_failed(number, why)
