"""System calls that Python has no name for. Each raises OSError with the kernel's errno."""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_capset = _libc.capset
_capset.restype = ctypes.c_int
_prctl = _libc.prctl
_prctl.restype = ctypes.c_int
_prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


def syscall(number: int, *arguments: int | bytes | None) -> int:
    """Calls the kernel. Integers are passed as 64 bits, bytes by their address."""
    passed = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = _syscall(ctypes.c_long(number), *passed)
    return _checked(result)


def prctl(option: int, second: int = 0, third: int = 0, fourth: int = 0, fifth: int = 0) -> int:
    result: int = _prctl(option, second, third, fourth, fifth)
    return _checked(result)


def empty_capabilities() -> None:
    """The effective, permitted and inheritable sets."""
    header = struct.pack("Ii", 0x20080522, 0)  # version 3 of the interface, this process
    _checked(_capset(header, bytes(24)))


def clear_environment() -> None:
    """Forgets every variable, also those that Python does not know of."""
    _libc.clearenv()


def overwrite(address: int, size: int) -> None:
    """Fills memory of this process with zeros."""
    ctypes.memset(address, 0, size)


def limit_arenas(count: int) -> None:
    """How many heaps malloc may open; each reserves address space for itself (glibc only)."""
    option = -8  # M_ARENA_MAX
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(option, count)


def _checked(result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
