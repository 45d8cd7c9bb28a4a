"""What a run tries that must not get at anything outside of itself. Each says what it got, if anything."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

KEPT = "kept"
"""A file in another run's folder."""
left_behind: list[str] = []
"""Written by every probe: a later run in the same process would find it."""

World = dict[str, list[str]]


def attempt(probe: Callable[[World], object], world: World) -> str:
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


def _listed(_: World) -> str:
    for folder in list(Path.cwd().parents)[:3]:
        with contextlib.suppress(OSError):
            return f"{folder}: {[each.name for each in folder.iterdir()]}"
    return ""


def _files_of_siblings(_: World) -> str:
    """Landlock does not rule stat: what is known by its path can be asked for its size."""
    own = Path.cwd()
    for folder in _siblings(next(each for each in own.parents if each.name == "own")):
        with contextlib.suppress(OSError):
            if not own.is_relative_to(folder):
                return f"{folder / KEPT}: {(folder / KEPT).stat().st_size} bytes"
    return ""


def _siblings(top: Path) -> set[Path]:
    """Where other runs may work: as if they were counted, and what the own memory knows of them."""
    counted = {str(number) for number in range(1000)}
    known = {each.decode() for each in _in_memory(rb"/own/([0-9a-f]+(?:/[0-9a-f]+)?)")}
    assert str(Path.cwd().relative_to(top)) in known, "it was looked for in the right way"
    return {top / each for each in counted | known}


def _in_memory(pattern: bytes) -> Iterator[bytes]:
    """What is found in the own memory, also where nothing refers to it any more."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        area, rights = line.split()[:2]
        if rights.startswith("rw"):
            start, end = (int(each, 16) for each in area.split("-"))
            yield from re.findall(pattern, (ctypes.c_char * (end - start)).from_address(start))


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


PROBES: dict[str, Callable[[World], object]] = {
    "environment": lambda world: [
        each for each in os.environ.values() if each in world["canaries"]
    ],
    "environment of others": lambda _: _first(_others("environ")),
    "memory of others": lambda _: _first(_others("mem")),
    "files of others": lambda world: _first([Path(each) for each in world["files"]]),
    "folders of other runs": _listed,
    "files of other runs": _files_of_siblings,
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
