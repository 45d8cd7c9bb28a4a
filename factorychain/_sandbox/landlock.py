"""Rules for files, TCP ports and signals (Landlock), for every ABI of it from 1 up.

Invariant: whatever the kernel can rule is ruled, so what no rule names is refused. A newer kernel's
further kinds are left alone, so that it behaves as the newest that is known here.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag

from factorychain._sandbox import kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""The same on every architecture."""
_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2


class Access(IntFlag):
    """What may be done with files (include/uapi/linux/landlock.h)."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
_ABSTRACT_SOCKETS, _SIGNALS = 1 << 0, 1 << 1
READ = Access.READ_FILE | Access.READ_DIR
READ_EXECUTE = READ | Access.EXECUTE
READ_WRITE = Access.READ_FILE | Access.WRITE_FILE
_ABI_1 = Access((1 << 13) - 1)
OWN = (
    (_ABI_1 | Access.REFER | Access.TRUNCATE)
    & ~(Access.EXECUTE | Access.MAKE_CHAR | Access.MAKE_BLOCK | Access.MAKE_SOCK)
)  # fmt: skip
"""In the run's own folder."""
_OF_FILES = (
    Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
)


@dataclass(frozen=True, slots=True)
class Handled:
    """What an ABI lets a process give up."""

    files: Access
    network: int
    scopes: int

    def attributes(self, abi: int) -> bytes:
        """As `struct landlock_ruleset_attr`, whose later fields an older kernel does not know."""
        fields = [int(self.files), self.network, self.scopes]
        known = 1 + (abi >= 4) + (abi >= 6)
        return struct.pack(f"{known}Q", *fields[:known])


def handled(abi: int) -> Handled:
    files = _ABI_1
    for since, right in ((2, Access.REFER), (3, Access.TRUNCATE), (5, Access.IOCTL_DEV)):
        if abi >= since:
            files |= right
    network = _BIND_TCP | _CONNECT_TCP if abi >= 4 else 0
    scopes = _ABSTRACT_SOCKETS | _SIGNALS if abi >= 6 else 0
    return Handled(files, network, scopes)


def kernel_abi() -> int:
    """The kernel's version of Landlock; 0 if it has none, or it is switched off."""
    try:
        return kernel.syscall(_CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def restrict(paths: Iterable[tuple[str, Access]], ports: Iterable[int], abi: int) -> None:
    """Restricts the process to these paths and ports, for good. A path that is not there is left out.

    Raises:
        OSError: the kernel did not take it; nothing is restricted then.
    """
    what = handled(abi)
    attributes = what.attributes(abi)
    ruleset = kernel.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path, access in paths:
            _allow_path(ruleset, path, access & what.files)
        for port in ports if what.network else ():
            kernel.syscall(_ADD_RULE, ruleset, _NET_PORT, struct.pack("QQ", _CONNECT_TCP, port), 0)
        kernel.syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow_path(ruleset: int, path: str, access: Access) -> None:
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not there, or behind a folder that we may not enter: nothing to allow
    try:
        if not stat.S_ISDIR(os.fstat(beneath).st_mode):
            access &= _OF_FILES
        rule = struct.pack("=Qi", access, beneath)
        kernel.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(beneath)
