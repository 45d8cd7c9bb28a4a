"""Taking more than there is to have. Each attempt does one thing, and returns what a test looks at or lets its error out."""

from __future__ import annotations

import mmap
import os
import resource
import signal
import threading
from pathlib import Path

from factorychain._sandbox import limits as limits_module


def allocate(size: int) -> int:
    return len(bytearray(size))


def map_shared(size: int) -> int:
    """Memory of which the kernel does not think as data."""
    return len(mmap.mmap(-1, size))


def heaps_of_threads(count: int) -> int:
    """Address space that waiting threads take which have allocated a little each."""
    before, ready, stop = (
        limits_module.mapped_bytes(),
        threading.Barrier(count + 1),
        threading.Event(),
    )

    def hold() -> None:
        held = bytearray(100_000)
        ready.wait()
        stop.wait()
        del held

    started = [threading.Thread(target=hold) for _ in range(count)]
    for each in started:
        each.start()
    ready.wait()
    grown = limits_module.mapped_bytes() - before
    stop.set()
    for each in started:
        each.join()
    return grown


def allocate_in_memory_files(size: int) -> None:
    descriptor = os.memfd_create("hoard")
    os.write(descriptor, bytes(size))


def spin() -> None:
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    while True:
        pass


def spin_until_told() -> str:
    """SIGXCPU comes as a signal like others at the limit."""
    told = threading.Event()
    signal.signal(signal.SIGXCPU, lambda *_: told.set())
    while not told.is_set():
        pass
    return "told"


def open_files() -> None:
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(10_000)]
    raise AssertionError(len(files))


def write_bytes(size: int) -> None:
    Path("big").write_bytes(bytes(size))


def limits() -> dict[str, list[int]]:
    names = ("RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_CPU")
    return {name: list(resource.getrlimit(getattr(resource, name))) for name in names}


def raise_limit() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (100_000, 100_000))


def niceness() -> list[object]:
    return [os.nice(0), Path("/proc/self/oom_score_adj").read_text().strip()]
