"""Starts a process for each run of agents that cannot be forked.

Invariant: only a few start at a time, since each imports everything: more would only be slower together.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from factorychain._process import control
from factorychain._process.control import ForkRequest, Place, Setup
from factorychain_agents.process.child import Child
from factorychain_agents.process.zygote_client import Births
from factorychain_agents.process.zygote_life import spawn

_AT_ONCE: Final = max(2, os.cpu_count() or 1)


class Spawner:
    """Where processes of one agent come from."""

    def __init__(self, setup: Setup, environment: Mapping[str, str]) -> None:
        """`environment` is all that they are started with."""
        self._setup = setup
        self._environment = environment
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[Place, str, Births]] = deque()
        self._starting: set[socket.socket] = set()

    def fork(self, places: Sequence[Place], confinement: str, births: Births) -> None:
        """As a zygote does."""
        self._waiting += [(each, confinement, births) for each in places]
        self._start_some()

    def stop(self) -> None:
        """Start no more."""
        self._waiting.clear()
        for each in list(self._starting):
            self._started(each)

    def _start_some(self) -> None:
        while self._waiting and len(self._starting) < _AT_ONCE:
            place, confinement, births = self._waiting.popleft()
            try:
                child, end = self._start(place, confinement)
            except OSError as error:
                births.stillborn(place.id, str(error))
            else:
                births.born(place.id, child, end)

    def _start(self, place: Place, confinement: str) -> tuple[Child, socket.socket]:
        orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours, its = socket.socketpair()
        with theirs, its:
            try:
                process = spawn("factorychain._process.spawned", theirs, self._environment)
                request = ForkRequest((place,), confinement)
                control.send(orders, self._setup.to_json() | request.to_json(), [its.fileno()])
            except OSError:
                orders.close()
                ours.close()
                raise
        child = Child(process.pid, os.pidfd_open(process.pid))
        child.exited.add_done_callback(lambda _: setattr(process, "returncode", 0))
        self._starting.add(orders)
        # It closes its end when it has imported everything, or has ended.
        self._loop.add_reader(orders, self._started, orders)
        return child, ours

    def _started(self, orders: socket.socket) -> None:
        self._loop.remove_reader(orders)
        orders.close()
        self._starting.discard(orders)
        self._start_some()
