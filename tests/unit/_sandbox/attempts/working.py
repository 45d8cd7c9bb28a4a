"""What must go on working. Each attempt does one thing, and returns what a test looks at or lets its error out."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import importlib
import mmap
import os
import signal
import socket
import struct
import threading
import time
from pathlib import Path


def loop(kind: str) -> str:
    """An event loop with a timer, a thread, a signal handler and a pair of connected sockets."""

    async def work() -> str:
        running = asyncio.get_running_loop()
        told = asyncio.Event()
        running.add_signal_handler(signal.SIGTERM, told.set)
        os.kill(os.getpid(), signal.SIGTERM)
        await told.wait()
        await asyncio.sleep(0.001)
        one, other = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=one)
        _, answering = await asyncio.open_connection(sock=other)
        answering.write(await asyncio.to_thread(lambda: b"heard\n"))
        line = await reader.readline()
        for each in (writer, answering):
            each.close()
            await each.wait_closed()
        return line.decode().strip()

    if kind == "uvloop":
        factory = importlib.import_module("uvloop").new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(work())
    return asyncio.run(work())


def threads(count: int) -> int:
    done = []
    started = [threading.Thread(target=lambda: done.append(1)) for _ in range(count)]
    for each in started:
        each.start()
    for each in started:
        each.join()
    return len(done)


def hold_threads() -> None:
    """As many as there can be, all at once."""
    stop = threading.Event()
    started = []
    try:
        while True:
            each = threading.Thread(target=stop.wait)
            each.start()
            started.append(each)
    finally:
        stop.set()
        for each in started:
            each.join()


def maps() -> int:
    """Large zeroed memory, as array libraries take it, and a mapped file."""
    anonymous = mmap.mmap(-1, 64 * 1024 * 1024)
    anonymous[-1] = 1
    Path("mapped").write_bytes(bytes(4096))
    with Path("mapped").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0] = 1
    return Path("mapped").read_bytes()[0]


def calls_back() -> list[int]:
    """C calls Python: needs memory that is made executable."""
    compare = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int)
    )
    values = (ctypes.c_int * 3)(3, 1, 2)
    order = compare(lambda one, other: one[0] - other[0])
    ctypes.CDLL(None).qsort(values, 3, ctypes.sizeof(ctypes.c_int), order)
    gc.collect()
    return list(values)


def imports(*names: str) -> list[str]:
    for name in names:
        importlib.import_module(name)
    return list(names)


def certificates() -> int:
    import ssl

    return len(ssl.create_default_context().get_ca_certs())


def facts() -> list[object]:
    import zoneinfo

    own = Path("/proc/self/statm").read_text()
    return [
        bool(own),
        (os.cpu_count() or 0) > 0,
        "MemTotal" in Path("/proc/meminfo").read_text(),
        str(zoneinfo.ZoneInfo("UTC")),
        len(os.urandom(4)),
        time.strftime("%Z") != "",
    ]


def audit_architecture() -> str:
    """The other way into the kernel on x86_64: calls by the numbers of 32 bit, here `getpid`."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(struct.pack("B", 0xB8) + struct.pack("<I", 20) + b"\xcd\x80\xc3")
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    result: int = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    return errno.errorcode.get(-result, str(result))
