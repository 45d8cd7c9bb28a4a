"""Agents that mean harm, for the end-to-end tests of processes."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from factorychain import Agent, RunContext
from tests.e2e.probes import KEPT, PROBES, attempt, left_behind


class Probes(Agent):
    """Tries what it must not be able to do; answers with what it got by name, empty if nothing.

    The input is JSON: `ports` that are open here, `sockets` and `files` that exist here, `pid` of a
    service.
    """

    name = "probes"

    async def run(self, ctx: RunContext, text: str) -> dict[str, str]:
        world = json.loads(text)
        found = {name: attempt(probe, world) for name, probe in PROBES.items()}
        left_behind.append(ctx.user)
        os.environ["LEFT_BEHIND"] = ctx.user
        Path("left-behind").write_text(ctx.user)
        return found


class Keeps(Agent):
    """Has a file in its folder until it is cancelled."""

    name = "keeps"

    async def run(self, ctx: RunContext, text: str) -> None:
        Path(KEPT).write_text(text)
        await ctx.think("kept")
        await asyncio.Event().wait()


class Spins(Agent):
    """Uses the processor without end, in two threads."""

    name = "spins"
    cpu_s = 1.0

    async def run(self, ctx: RunContext, text: str) -> NoReturn:
        threading.Thread(target=_spin, daemon=True).start()
        _spin()


def _spin() -> NoReturn:
    while True:
        pass


class Eats(Agent):
    """Allocates without end."""

    name = "eats"
    memory_bytes = 64 * 1024 * 1024

    async def run(self, ctx: RunContext, text: str) -> NoReturn:
        kept = []
        while True:
            kept.append(bytearray(1024 * 1024))


class Floods(Agent):
    """Says something without end, and never waits for anything else."""

    name = "floods"

    async def run(self, ctx: RunContext, text: str) -> NoReturn:
        while True:
            await ctx.think("again " * 100)


class Sleeps(Agent):
    """Holds up its own loop."""

    name = "sleeps"

    async def run(self, ctx: RunContext, text: str) -> NoReturn:
        lock = threading.Lock()
        lock.acquire()
        while True:
            lock.acquire()


class Bombs(Agent):
    """Multiplies as far as it can, in threads where it cannot in processes."""

    name = "bombs"
    cpu_s = 1.0

    async def run(self, ctx: RunContext, text: str) -> NoReturn:
        while True:
            with contextlib.suppress(OSError, RuntimeError):
                os.fork()
            with contextlib.suppress(OSError, RuntimeError):
                threading.Thread(target=_spin, daemon=True).start()


class Multiplies(Agent):
    """May start processes; leaves some behind that try to get away from it."""

    name = "multiplies"
    processes = True

    async def run(self, ctx: RunContext, text: str) -> None:
        await ctx.emit("left", [_left_behind(escape) for escape in _ESCAPES])
        if text == "exit":
            os._exit(0)
        if text == "stay":
            await asyncio.Event().wait()


def _left_behind(escape: Callable[[], object]) -> int:
    """The pid of a process that stays as long as it can."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        with contextlib.suppress(OSError):
            escape()
        os.write(writing, str(os.getpid()).encode())
        while True:
            time.sleep(600)
    return int(os.read(reading, 16))


def _hears_nothing() -> None:
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)


_ESCAPES: tuple[Callable[[], object], ...] = (
    lambda: None,
    _hears_nothing,
    os.setsid,
    lambda: os.setpgid(0, 0),
    lambda: os.fork() and os._exit(0),
)


class Stays(Agent):
    """Stops for no cancel and no signal."""

    name = "stays"

    async def run(self, ctx: RunContext, text: str) -> NoReturn:
        _hears_nothing()
        await ctx.think("here to stay")
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()


class Dies(Agent):
    """Ends its process in the way it is told."""

    name = "dies"

    async def run(self, ctx: RunContext, text: str) -> None:
        await ctx.think("about to die")
        if text == "segv":
            ctypes.string_at(0)
        elif text == "exit":
            os._exit(0)
        elif text == "close":
            os.closerange(0, 256)
            await asyncio.Event().wait()
        elif text == "nonsense":
            os.write(_service_end(), b"\xff" * 4096)
            await asyncio.Event().wait()


def _service_end() -> int:
    """The socket to the service: the first that is no end of the loop's own pair."""
    for number in range(3, 64):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)):
            return number
    raise OSError("there is none")
