"""What a process has from before it was confined. Each attempt does one thing, and returns what a test looks at or lets its error out."""

from __future__ import annotations

import contextlib
import ctypes
import os
import posix
import tempfile
from pathlib import Path

from tests.unit._sandbox.attempts.processes import call


def status() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def dumpable() -> int:
    return call("prctl", 3, 0, 0, 0, 0)


def become_dumpable() -> None:
    call("prctl", 4, 1, 0, 0, 0)


def groups() -> list[int]:
    return os.getgroups()


def environment() -> dict[str, str]:
    return dict(os.environ)


def environment_missing(name: str) -> str:
    return os.environ[name]


def memory_of_environment() -> list[str]:
    """Every other place where a process's first environment is found."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_char_p
    found = [repr(posix.environ), repr(libc.getenv(b"CANARY"))]
    with contextlib.suppress(PermissionError):  # not root: it belongs to root in a hidden process
        found.append(Path("/proc/self/environ").read_bytes().decode().strip("\0"))
    return found


def descriptors() -> dict[str, str]:
    found = {}
    for each in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # the one that listed them
            found[each.name] = str(each.readlink())
    return found


def write_to(descriptor: int) -> int:
    return os.write(descriptor, b"x")


def working_folders() -> list[str]:
    return [str(Path.cwd()), tempfile.gettempdir(), str(Path.home())]
