"""One zygote process from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from factorychain._process import control
from factorychain._process.control import ForkRequest, Prepared, Setup
from factorychain.input import Json
from factorychain_agents.process.child import Child, known
from factorychain_agents.process.orphans import reap_orphans

_READY_S: Final = 120.0
_LEAVE_S: Final = 5.0
"""In which it closes what its agents share."""

Told = Callable[[dict[str, Json], Sequence[int]], None]
"""Hears what it says, with the descriptors that came along."""


class ZygoteFailed(Exception):
    """It did not become ready."""


class ZygoteLife:
    """A zygote. Started when it is made."""

    def __init__(self, setup: Setup, environment: Mapping[str, str], told: Told) -> None:
        self.over = asyncio.Event()
        """It is gone."""
        self.how = ""
        """How it ended, in words."""
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._prepared: asyncio.Future[Prepared] = self._loop.create_future()
        self._end, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self._process = spawn("factorychain._process.zygote", its, environment)
        self.pid = self._process.pid
        self._child = Child(self.pid, os.pidfd_open(self.pid))
        self._child.exited.add_done_callback(lambda done: self._ended(str(done.result())))
        control.send(self._end, setup.to_json())
        self._end.setblocking(False)
        self._loop.add_reader(self._end, self._readable)

    async def ready(self) -> Prepared:
        """What it has prepared.

        Raises:
            ZygoteFailed: it ended before, or takes for ever.
        """
        try:
            async with asyncio.timeout(_READY_S):
                return await self._prepared
        except TimeoutError:
            await self.stop()
            raise ZygoteFailed(
                f"importing the agents' modules took more than {_READY_S:.0f} s"
            ) from None

    def ask(self, request: ForkRequest) -> bool:
        """Ask it for processes; False if it cannot be asked now."""
        if self.over.is_set():
            return False
        try:
            control.send(self._end, request.to_json())
        except OSError:  # it is gone, or so much is asked of it that it can take no more
            return False
        return True

    async def stop(self) -> None:
        """Let it end; it ends by itself when nobody talks to it any more."""
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                await self.over.wait()
        self._child.kill()
        await self.over.wait()
        await reap_orphans(self.pid, known)

    def _readable(self) -> None:
        while True:
            try:
                received = control.receive(self._end)
            except BlockingIOError:
                return
            if received is None:
                self._loop.remove_reader(self._end)
                return
            self._take(*received)

    def _take(self, message: dict[str, Json], fds: Sequence[int]) -> None:
        if "prepared" in message:
            if not self._prepared.done():
                self._prepared.set_result(Prepared.from_json(message))
        else:
            self._told(message, fds)

    def _ended(self, how: str) -> None:
        # What it has sent before its end counts.
        self._readable()
        self._loop.remove_reader(self._end)
        self._end.close()
        self._process.returncode = 0  # reaped by `Child`
        self.how = how
        self.over.set()
        if not self._prepared.done():
            why = f"the process that agents are forked from ended {how} before it was ready; see the log"
            self._prepared.set_exception(ZygoteFailed(why))


def spawn(
    module: str, its: socket.socket, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Execute a module of ours in a group of its own, with one descriptor besides the standard ones."""
    command = [sys.executable, "-P", "-m", module, str(its.fileno()), str(os.getpid())]
    return subprocess.Popen(
        command,
        env=dict(environment),
        pass_fds=(its.fileno(),),
        stdin=subprocess.DEVNULL,
        process_group=0,
    )
