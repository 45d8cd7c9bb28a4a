"""One child process, by pidfd: its end, its signals, what it used.

Invariant: it is reaped exactly once, after everything in its process group was killed; until then its
pid is nobody else's, so a signal never reaches a stranger.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from typing import Final

from factorychain._core.logging import get_logger

log = get_logger(__name__)

_SOON_S: Final = 0.01
_NOT_SO_SOON_S: Final = 0.2
_AFTER_TRIES: Final = 100
_TRIES: Final = 3000


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended."""

    status: int | None
    """Its exit status; None: by a signal, or not known."""
    signal: int = 0
    cpu_s: float = 0.0
    """Processor time that it used."""
    peak_bytes: int = 0
    """The most memory that it had."""

    def __str__(self) -> str:
        if self.signal:
            try:
                return f"by {signal.Signals(self.signal).name}"
            except ValueError:
                return f"by signal {self.signal}"
        return f"with status {self.status}"


known: set[int] = set()
"""Pids of the children that have a `Child`."""


class Child:
    """A process whose parent is this one, or will be in a moment."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[Exit] = self._loop.create_future()
        """Done when it is reaped."""
        self._pidfd = pidfd
        self._tries = 0
        known.add(pid)
        self._loop.add_reader(pidfd, self._ended)

    def terminate(self) -> None:
        """SIGTERM, to its whole group."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, to its whole group."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.exited.done():
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)
        self._signal_group(number)

    def _signal_group(self, number: signal.Signals) -> None:
        # No such group: it has not made itself one yet, and then has nobody in it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _ended(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._signal_group(signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        try:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        except ChildProcessError:
            pid = 0
        if pid == 0:
            # The process that forked it has not ended yet, and has it still.
            self._tries += 1
            if self._tries < _TRIES:
                delay_s = _SOON_S if self._tries < _AFTER_TRIES else _NOT_SO_SOON_S
                self._loop.call_later(delay_s, self._reap)
                return
            log.error("a run process could not be reaped", pid=self.pid)
            self._done(Exit(None))
            return
        self._reap_group()
        by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        cpu_s = usage.ru_utime + usage.ru_stime
        self._done(Exit(code, by, cpu_s, usage.ru_maxrss * 1024))

    def _reap_group(self) -> None:
        """Children of its own, which were killed with it and are this process's now."""
        try:
            while os.waitid(os.P_PGID, self.pid, os.WEXITED | os.WNOHANG):
                pass
        except ChildProcessError:
            return
        # Some are about to end. As long as they are there, their group's number is nobody else's.
        self._signal_group(signal.SIGKILL)
        self._loop.call_later(_SOON_S, self._reap_group)

    def _done(self, found: Exit) -> None:
        known.discard(self.pid)
        os.close(self._pidfd)
        if not self.exited.done():
            self.exited.set_result(found)
