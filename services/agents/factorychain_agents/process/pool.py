"""Idle run processes that are confined alike, and those that are on their way.

Invariant: a process is handed to one run at most; who waits gets the next one that is born; what a dead
one leaves is cleaned up whoever it belonged to.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Final, Protocol

from factorychain._core.logging import get_logger
from factorychain._process.control import Place
from factorychain._process.wire import FromInstance
from factorychain.errors import Capacity
from factorychain_agents.process.child import Child, Exit
from factorychain_agents.process.demand import Demand
from factorychain_agents.process.directories import RunDirectories
from factorychain_agents.process.instance_process import InstanceProcess
from factorychain_agents.process.zygote_client import Births

log = get_logger(__name__)

# A start of its own takes a second of the processor, and many may be asked for at once.
_WAIT_S: Final = 60.0
_COMING_MAX: Final = 32
_SOON_S: Final = 0.05
_FIRST_DELAY_S: Final = 0.1
_MAX_DELAY_S: Final = 5.0


class Source(Protocol):
    """Makes processes: the zygote, or a start of each."""

    def fork(self, places: Sequence[Place], confinement: str, births: Births) -> None: ...


class Pool:
    """The processes of one kind."""

    def __init__(
        self,
        source: Source,
        confinement: str,
        directories: RunDirectories,
        demand: Demand,
        numbers: Callable[[], int],
    ) -> None:
        self._source = source
        self._confinement = confinement
        self._directories = directories
        self._demand = demand
        self._numbers = numbers
        self._loop = asyncio.get_running_loop()
        self._idle: deque[InstanceProcess] = deque()
        self._coming: dict[int, Place] = {}
        self._settling: set[InstanceProcess] = set()
        self._waiting: deque[asyncio.Future[InstanceProcess]] = deque()
        self._all: set[InstanceProcess] = set()
        self._failures = 0
        self._again: asyncio.TimerHandle | None = None
        self._soon: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        """How many processes there are, idle ones included."""
        return len(self._all)

    @property
    def idle(self) -> int:
        """How many wait for a run."""
        return len(self._idle)

    @property
    def settled(self) -> bool:
        """Whether every process that there is waits for a run, and no other one is wanted."""
        return len(self._all) == len(self._idle) and not self._coming and self._soon is None

    async def acquire(self) -> InstanceProcess:
        """A process for one run.

        Raises:
            Capacity: none could be made in time.
        """
        if self._closed:
            raise Capacity("the service stops")
        self._demand.started(self._loop.time())
        if self._idle:
            process = self._idle.popleft()
            self._refill_soon()
            return process
        waiter: asyncio.Future[InstanceProcess] = self._loop.create_future()
        self._waiting.append(waiter)
        taken = False
        try:
            self.refill()
            async with asyncio.timeout(_WAIT_S):
                process = await waiter
                taken = True
                return process
        except TimeoutError:
            raise Capacity("no process could be started for the agent; try again") from None
        finally:
            if not taken:
                self._forget(waiter)

    def refill(self) -> None:
        """Ask for what is missing; to be called from time to time too, so that too many go."""
        if self._closed or self._again is not None:
            return
        wanted = len(self._waiting) + self._demand.idle_wanted(self._loop.time())
        missing = wanted - len(self._idle) - len(self._settling) - len(self._coming)
        # In groups: what forks them ends after each, and the zygote's queue is not endless.
        if missing > 0 and len(self._coming) <= _COMING_MAX // 2:
            self._ask(min(missing, _COMING_MAX - len(self._coming)))
        for _ in range(min(-missing, len(self._idle))):
            self._idle.pop().kill()

    async def stop(self) -> None:
        """End them all."""
        self._closed = True
        for timer in (self._again, self._soon):
            if timer is not None:
                timer.cancel()
        for waiter in self._waiting:
            waiter.cancel()
        left = list(self._all)
        for process in left:
            process.kill()
        for process in left:
            await process.wait_ended()

    # --- what becomes of what was asked for (`Births`) ---

    def born(self, number: int, child: Child, end: socket.socket) -> None:
        place = self._coming.pop(number)
        process = InstanceProcess(place, child, end, self._gone)
        self._all.add(process)
        if self._closed:
            process.kill()
            return
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(process)
                self.refill()
                return
        self._settling.add(process)
        process.belong_to(_Idler(self, process))
        self.refill()

    def stillborn(self, number: int, why: str) -> None:
        place = self._coming.pop(number)
        self._directories.remove(place)
        self._failed(why)

    def ready(self, process: InstanceProcess) -> None:
        """An idle one is confined and waits."""
        self._failures = 0
        if process in self._settling:
            self._settling.remove(process)
            self._idle.append(process)

    def lost(self, process: InstanceProcess, why: str) -> None:
        """An idle one has ended."""
        if process in self._idle:
            self._idle.remove(process)
        if process in self._settling:
            self._settling.remove(process)
            self._failed(why)

    # --- inside ---

    def _ask(self, count: int) -> None:
        places = [self._directories.place(self._numbers()) for _ in range(count)]
        self._coming |= {each.id: each for each in places}
        # Whoever asked is not who will use them: what listens to a process knows no run.
        Context().run(self._source.fork, places, self._confinement, self)

    def _refill_soon(self) -> None:
        """Not at once, if there are others: a fork would take the processor from the run that starts."""
        if not self._idle:
            self.refill()
        elif self._soon is None:
            self._soon = self._loop.call_later(_SOON_S, self._refill_now)

    def _refill_now(self) -> None:
        self._soon = None
        self.refill()

    def _forget(self, waiter: asyncio.Future[InstanceProcess]) -> None:
        """Who waited has gone, perhaps just when a process came."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        elif waiter.done() and not waiter.cancelled():
            waiter.result().kill()

    def _failed(self, why: str) -> None:
        """None was made: again, but later and later."""
        if self._closed or self._again is not None:
            return
        log.error("a run process could not be made ready", why=why)
        delay_s = min(_FIRST_DELAY_S * 2**self._failures, _MAX_DELAY_S)
        self._failures = min(self._failures + 1, 10)
        self._again = self._loop.call_later(delay_s, self._retry)

    def _retry(self) -> None:
        self._again = None
        self.refill()

    def _gone(self, process: InstanceProcess) -> None:
        self._all.discard(process)
        self._directories.remove(process.place)


class _Idler:
    """Owner of a process that has no run yet."""

    def __init__(self, pool: Pool, process: InstanceProcess) -> None:
        self._pool = pool
        self._process = process

    def heard(self, kind: FromInstance, payload: bytes) -> None:
        if kind is FromInstance.READY:
            self._pool.ready(self._process)

    def broke(self, why: str) -> None:
        self._process.kill()

    def ended(self, how: Exit, words: str) -> None:
        self._pool.lost(self._process, f"it ended {how}: {words.strip()[-2000:]}")
