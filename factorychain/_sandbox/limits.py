"""Limits of a process, and its weight against others. Invariant: none is ever raised."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import time

from factorychain._sandbox import kernel
from factorychain._sandbox.confinement import Confinement
from factorychain._sandbox.slices import take_default_slices

_LAST_CPU_S = 1
"""Between SIGXCPU, which may be ignored, and SIGKILL, which may not."""
_ARENAS = 2
_NONE = ("RLIMIT_CORE", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO")


def apply_limits(confinement: Confinement) -> None:
    """Sets the limits, counted from what the process has used and mapped by now."""
    kernel.limit_arenas(_ARENAS)  # a thread's own heap would take 64 MiB of the address space
    used_s = math.ceil(time.process_time() + confinement.cpu_s)
    _limit(resource.RLIMIT_CPU, used_s, used_s + _LAST_CPU_S)
    _limit(resource.RLIMIT_NOFILE, confinement.open_files)
    _limit(resource.RLIMIT_FSIZE, confinement.file_bytes)
    for name in _NONE:
        _limit(getattr(resource, name), 0)
    _limit(resource.RLIMIT_AS, mapped_bytes() + confinement.memory_bytes)


def mapped_bytes() -> int:
    """Address space that this process has mapped."""
    descriptor = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(descriptor, 256).split()[0]) * resource.getpagesize()
    finally:
        os.close(descriptor)


def _limit(which: int, soft: int, hard: int | None = None) -> None:
    _, most = resource.getrlimit(which)
    wanted = soft if hard is None else hard
    highest = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(which, (min(soft, highest), highest))


def lower_weight(nice: int) -> None:
    """Takes less processor time than others; goes first when the machine is out of memory."""
    os.nice(nice)
    take_default_slices()
    with contextlib.suppress(OSError):  # a /proc that cannot be written to, in some containers
        _write("/proc/self/oom_score_adj", b"1000")


def _write(path: str, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text)
    finally:
        os.close(descriptor)
