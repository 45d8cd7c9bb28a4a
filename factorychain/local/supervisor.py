"""Starts the chain, keeps it running, stops it in order.

Invariants: NATS listens before a layer starts; a process that dies is started again on the same ports, and
so is a NATS that has found no room on its disk, once there is some; what ends the supervisor ends every process.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from factorychain.local.chain import ChainPlan
from factorychain.local.datadir import DataDir
from factorychain.local.process import ChildProcess
from factorychain.local.readiness import chain_ready, nats_listens, wait_ready
from factorychain.local.state import ChainState
from factorychain.local.store_room import StoreRoom

# Longer than the agents' modules may take to be imported.
_START_S = 150.0
_STOP_GRACE_S = 15.0
_POLL_S = 0.05
_ROOM_LOOK_S = 0.25
_ROOM_AGAIN_S = 5.0
# A process that dies this often before the chain first served will not come up by itself.
_HOPELESS_EXITS = 3
# What a service exits with when only another configuration would help (`_core.runtime`).
_MISCONFIGURED = 2
# How a process ends that is told to stop, also before it has learned to listen to that.
_STOPPED = (0, -signal.SIGTERM)


class ChainDidNotStart(Exception):
    """Some process could not be brought up; the message says which and why."""


class Supervisor:
    """The running chain of one plan."""

    def __init__(
        self,
        plan: ChainPlan,
        data: DataDir,
        *,
        ready_file: Path | None,
        report: Callable[[str, str], None],
    ) -> None:
        """`report(name, what)` is told of every process that exits and was not to."""
        self._plan = plan
        self._data = data
        self._ready_file = ready_file
        self._report = report
        self._children: dict[str, ChildProcess] = {}
        self._hopeless: asyncio.Future[str] | None = None
        self._ready = False
        self._stopping = False
        self._killed = False
        self._room = StoreRoom(data.nats_log, data.nats_store)
        self._keeping: asyncio.Task[None] | None = None

    @property
    def state(self) -> ChainState:
        """Where everything is now."""
        return self._plan.state

    async def start(self) -> None:
        """Returns when everything serves.

        Raises:
            ChainDidNotStart: if something does not come up.
        """
        self._hopeless = asyncio.get_running_loop().create_future()
        nats, *layers = self._plan.processes
        self._start_child(nats.name)
        await self._until(self._nats_up(), "nats did not start to listen")
        for spec in layers:
            self._start_child(spec.name)
        await self._until(wait_ready(self.state), "the chain did not become ready")
        self._ready = True
        self._write_state()
        self._keeping = asyncio.create_task(self._keep_storing(), name="store-room")

    def restart(self, name: str) -> None:
        """Stops one process, by force if it does not listen; it is started again at once."""
        self._children[name].restart(_STOP_GRACE_S)

    async def stop(self) -> None:
        """Stops the layers against the direction of a request's way, NATS last."""
        order = ["engine", "agents", "emitter", "bridge", "nats"]
        self._stopping = True
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        for name in order:
            child = self._children.get(name)
            if child is not None:
                await child.stop(0 if self._killed else _STOP_GRACE_S)
        if self._ready_file is not None:
            self._ready_file.unlink(missing_ok=True)
        self._plan.close()

    def kill(self) -> None:
        """Ends every process now; for a `stop` that takes too long."""
        self._killed = True
        for child in self._children.values():
            child.kill()

    def _start_child(self, name: str) -> None:
        self._data.reason_file(name).unlink(missing_ok=True)
        spec = next(each for each in self._plan.processes if each.name == name)
        child = self._children[name] = ChildProcess(spec, self._changed)
        child.start()

    def _changed(self, child: ChildProcess, what: str) -> None:
        name = child.spec.name
        self.state.pids[name] = [child.pid] if child.pid is not None else []
        if (name, what) == ("nats", "started"):
            self._room.forget()
        if what != "started" and not (self._stopping and child.exit_status in _STOPPED):
            self._report(name, what)
        if self._ready:
            self._write_state()
        elif what != "started":
            self._judge(child, what)

    def _judge(self, child: ChildProcess, what: str) -> None:
        """Whether a chain that never served can still come up after a process exited."""
        name, hopeless = child.spec.name, child.restarts.count + 1 >= _HOPELESS_EXITS
        if child.exit_status == _MISCONFIGURED or hopeless:
            unexplained = f"it {what}; the lines above and {self._data.nats_log} may say more"
            self._give_up(f"{name} does not start: {self._reason(name) or unexplained}")

    def _reason(self, name: str) -> str:
        with contextlib.suppress(OSError):
            return self._data.reason_file(name).read_text()
        return ""

    async def _keep_storing(self) -> None:
        """NATS stores nothing more once it has found no room: start it again when there is some."""
        told = False
        while True:
            await asyncio.sleep(_ROOM_LOOK_S)
            if not self._room.found_none():
                told = False
            elif self._room.has_room():
                self._report("nats", "had no room on its disk and has some again: it is restarted")
                self.restart("nats")
                await asyncio.sleep(_ROOM_AGAIN_S)
            elif not told:
                self._report("nats", f"has no room on its disk ({self._data.nats_store})")
                told = True

    def _give_up(self, problem: str) -> None:
        if self._hopeless is not None and not self._hopeless.done():
            self._hopeless.set_result(problem)

    def _write_state(self) -> None:
        self.state.write(self._data.state_file)
        if self._ready_file is not None:
            self.state.write(self._ready_file)

    async def _nats_up(self) -> None:
        while not await nats_listens(self.state.nats):  # noqa: ASYNC110 - another process
            await asyncio.sleep(_POLL_S)

    async def _until(self, ready: Coroutine[None, None, None], problem: str) -> None:
        assert self._hopeless is not None
        waiting = asyncio.create_task(ready)
        either: set[asyncio.Future[Any]] = {waiting, self._hopeless}
        try:
            await asyncio.wait(either, timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
            if self._hopeless.done():
                raise ChainDidNotStart(self._hopeless.result())
            if not waiting.done():
                raise ChainDidNotStart(f"{problem} in {_START_S:.0f} s{await self._missing()}")
            waiting.result()
        finally:
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting

    async def _missing(self) -> str:
        serving = await chain_ready(self.state)
        missing = [name for name, serves in serving.items() if not serves]
        return f" (not serving: {', '.join(missing)})" if missing else ""
