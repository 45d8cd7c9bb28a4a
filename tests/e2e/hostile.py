"""Agents that mean harm, for the end-to-end tests of processes."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from factorychain import Agent, RunContext

left_behind: list[str] = []
"""Written by every probe: a later run in the same process would find it."""


class Probes(Agent):
    """Tries what it must not be able to do; answers with what it got by name, empty if nothing.

    The input is JSON: `ports` that are open here, `sockets` and `files` that exist here, `pid` of a
    service.
    """

    name = "probes"

    async def run(self, ctx: RunContext, text: str) -> dict[str, str]:
        world = json.loads(text)
        found = {name: _attempt(probe, world) for name, probe in _PROBES.items()}
        left_behind.append(ctx.user)
        os.environ["LEFT_BEHIND"] = ctx.user
        Path("left-behind").write_text(ctx.user)
        return found


World = dict[str, list[str]]


def _attempt(probe: Callable[[World], object], world: World) -> str:
    try:
        return str(probe(world) or "")
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""


def _first(paths: list[Path]) -> str:
    """The first that can be read."""
    for path in paths:
        with contextlib.suppress(OSError):
            return f"{path}: {path.read_bytes()[:40]!r}"
    return ""


def _others(name: str) -> list[Path]:
    own = str(os.getpid())
    return [
        each / name for each in Path("/proc").iterdir() if each.name.isdigit() and each.name != own
    ]


def _connects(world: World) -> str:
    for port in world["ports"]:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", int(port)), timeout=1).close()
            return f"port {port}"
    for path in world["sockets"]:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as unix:
            unix.connect(path)
            return path
    return ""


def _sends_datagram(world: World) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(b"hello", ("127.0.0.1", int(world["ports"][0])))
    return "sent"


def _writes(world: World) -> str:
    for folder in ("/tmp", "/var/tmp", "/dev/shm", str(Path.home().parent), *world["folders"]):
        with contextlib.suppress(OSError):
            Path(folder, "hostile").write_text("here")
            return folder
    return ""


def _signals(world: World) -> str:
    os.kill(int(world["pid"][0]), 0)
    return "allowed"


def _traces(world: World) -> str:
    attached = ctypes.CDLL(None, use_errno=True).ptrace(16, int(world["pid"][0]), 0, 0)
    return "attached" if attached == 0 else ""


def _becomes_another_user(_: World) -> str:
    os.setuid(12345)
    return "allowed"


def _descriptors(_: World) -> str:
    kinds = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the listing itself
            kinds.append(str(each.readlink()))
    sockets = [each for each in kinds if each.startswith("socket:")]
    # Its own: one to the service, two of its event loop.
    return "" if len(sockets) <= 3 else ", ".join(kinds)


def _residue(_: World) -> str:
    return ", ".join(
        [*left_behind, os.environ.get("LEFT_BEHIND", ""), *map(str, Path().iterdir())]
    ).strip(", ")


_PROBES: dict[str, Callable[[World], object]] = {
    "environment": lambda world: [
        each for each in os.environ.values() if each in world["canaries"]
    ],
    "environment of others": lambda _: _first(_others("environ")),
    "memory of others": lambda _: _first(_others("mem")),
    "files of others": lambda world: _first([Path(each) for each in world["files"]]),
    "folders of other runs": lambda _: list(Path("../..").iterdir()),
    "what earlier runs left": _residue,
    "descriptors": _descriptors,
    "connections": _connects,
    "datagrams": _sends_datagram,
    "raw packets": lambda _: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "writing outside": _writes,
    "signals": _signals,
    "tracing": _traces,
    "forks": lambda _: os.fork() or os._exit(0),
    "programs": lambda _: subprocess.run([sys.executable, "-V"], check=False, timeout=5),
    "another user": _becomes_another_user,
    "privileges": lambda _: os.chroot("."),
}


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
