"""One supervised child process.

Invariant: a child never outlives its supervisor (the kernel signals it when the supervisor dies), and one
that dies is started again with a growing delay that is reset only after it has stayed up.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from factorychain._sandbox.slices import take_short_slices

_FIRST_DELAY_S = 0.2
_MAX_DELAY_S = 5.0
_HEALTHY_AFTER_S = 20.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What to start: the layer's name, its command, its whole environment, descriptors that it inherits."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    inherit: Sequence[int] = ()
    log_path: str | None = None


@dataclass(slots=True)
class Restarts:
    """When to start a process again: at once after a long life, later and later after short ones."""

    delay_s: float = _FIRST_DELAY_S
    count: int = 0
    started_at: float = field(default_factory=time.monotonic)

    def started(self, now: float) -> None:
        """Notes a start."""
        self.started_at = now

    def next_delay_s(self, now: float) -> float:
        """How long to wait before the next start, in seconds."""
        if now - self.started_at >= _HEALTHY_AFTER_S:
            self.delay_s = _FIRST_DELAY_S
        delay, self.delay_s = self.delay_s, min(_MAX_DELAY_S, self.delay_s * 2)
        self.count += 1
        return delay


def _prepare() -> None:
    # Runs between fork and exec. nats-server does neither itself.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _leave_terminal()
    take_short_slices()


def _leave_terminal() -> None:
    """Neither the calling process nor what it starts has the session's terminal any more (tty_ioctl(2))."""
    with contextlib.suppress(OSError):  # there is none
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        fcntl.ioctl(terminal, termios.TIOCNOTTY)
        os.close(terminal)


class ChildProcess:
    """Starts a process, starts it again when it dies, stops it for good on `stop`."""

    def __init__(self, spec: ProcessSpec, on_change: Callable[[ChildProcess, str], None]) -> None:
        """`on_change(child, what)` is told of every start and exit in words; it must not block."""
        self.spec = spec
        self.restarts = Restarts()
        self.exit_status: int | None = None
        self._on_change = on_change
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        # No delay before what is next: a restart that was asked for, or the end.
        self._now = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The pid of the running process, None while there is none."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Starts the process and watches it from now on.

        Raises:
            OSError: if the command cannot be executed at all.
        """
        self._spawn()
        self._task = asyncio.create_task(self._watch(), name=f"watch-{self.spec.name}")

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL after the grace; returns when the process is reaped."""
        self._stopping = True
        self._now.set()
        self._signal(signal.SIGTERM)
        if self._task is None:
            return
        try:
            async with asyncio.timeout(grace_s):
                await asyncio.shield(self._task)
        except TimeoutError:
            self.kill()
            await self._task

    def kill(self) -> None:
        """SIGKILL, for a `stop` that nobody wants to wait for."""
        self._signal(signal.SIGKILL)

    def restart(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL after the grace; it is started again at once, also if it waits to be."""
        self._now.set()
        self._signal(signal.SIGTERM)
        if self._process is not None:
            asyncio.get_running_loop().call_later(grace_s, self._overdue, self._process)

    def _overdue(self, process: subprocess.Popen[bytes]) -> None:
        if self._process is process:
            self.kill()

    def _spawn(self) -> None:
        log = Path(self.spec.log_path).open("ab") if self.spec.log_path else None  # noqa: SIM115
        try:
            # A group of its own: ^C in the terminal reaches the supervisor only, which stops in order. One
            # session for all: where the kernel groups by session (sched(7), autogroup) each would weigh
            # as much as all the others together, and what a run is told to leave them would count nothing.
            self._process = subprocess.Popen(
                list(self.spec.command),
                env=dict(self.spec.env),
                pass_fds=tuple(self.spec.inherit),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                preexec_fn=_prepare,  # noqa: PLW1509 - the supervisor has one thread
            )
        finally:
            if log is not None:
                log.close()
        self.restarts.started(time.monotonic())
        self._on_change(self, "started")

    async def _watch(self) -> None:
        while True:
            self.exit_status = await self._exited()
            self._process = None
            self._on_change(self, f"exited {describe_exit(self.exit_status)}")
            await self._pause()
            if self._stopping:
                return
            self._spawn()

    async def _pause(self) -> None:
        if not self._now.is_set():
            delay_s = self.restarts.next_delay_s(time.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._now.wait()
        self._now.clear()

    async def _exited(self) -> int:
        process = self._process
        assert process is not None
        loop = asyncio.get_running_loop()
        exited: asyncio.Future[None] = loop.create_future()
        pidfd = os.pidfd_open(process.pid)

        def readable() -> None:
            if not exited.done():
                exited.set_result(None)

        loop.add_reader(pidfd, readable)
        try:
            await exited
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
        return process.wait()

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)


def describe_exit(status: int) -> str:
    """An exit status in words: `with status 1`, `by SIGKILL`."""
    if status >= 0:
        return f"with status {status}"
    try:
        return f"by {signal.Signals(-status).name}"
    except ValueError:
        return f"by signal {-status}"
