"""Installs the filter of system calls (seccomp). It holds for all that the process does afterwards."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from functools import lru_cache

from factorychain._sandbox import kernel
from factorychain._sandbox.bpf import Instruction, Rule, block, closing, encode, opening
from factorychain._sandbox.policy import fixed_rules, own_rules
from factorychain._sandbox.syscalls import ARCHITECTURES, LAST_KNOWN, NUMBERS, machine

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_ANY_PID = 0x5AA5C33C
"""Stands for the process's own number, which is never as high, in a program not yet put to use."""


def supported() -> bool:
    """Whether this kernel has it and this architecture's numbers are known."""
    if machine() not in NUMBERS:
        return False
    try:
        kernel.prctl(_PR_SET_SECCOMP, _MODE_FILTER, 0)
    except OSError as error:
        # The kernel looked for the program at address 0 (or at our privileges): it has filters.
        return error.errno in {errno.EFAULT, errno.EACCES}
    return False


def install(program: bytes) -> None:
    """Filters from now on; needs `no_new_privs`."""
    buffer = ctypes.create_string_buffer(program, len(program))
    count = len(program) // struct.calcsize("HBBI")
    described = struct.pack("H6xQ", count, ctypes.addressof(buffer))
    holder = ctypes.create_string_buffer(described, len(described))
    kernel.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(holder))


def filter_for(*, processes: bool, connects: bool, truncate_ruled: bool) -> bytes:
    """The program for this process: one that was made in its parent, with its own number put in."""
    made = _for_any(processes=processes, connects=connects, truncate_ruled=truncate_ruled)
    return made.replace(struct.pack("I", _ANY_PID), struct.pack("I", os.getpid()))


@lru_cache
def _for_any(*, processes: bool, connects: bool, truncate_ruled: bool) -> bytes:
    rules = fixed_rules(processes=processes, connects=connects, truncate_ruled=truncate_ruled)
    return encode(program([*rules, *own_rules(_ANY_PID, processes=processes)], machine()))


def program(rules: list[Rule], architecture: str) -> list[Instruction]:
    """The whole filter. A call that the architecture lacks needs no rule."""
    numbers = NUMBERS[architecture]
    start = opening(ARCHITECTURES[architecture], LAST_KNOWN, errno.EPERM, errno.ENOSYS)
    known = [each for each in rules if each.call in numbers]
    blocks = [step for rule in known for step in block(rule, numbers[rule.call])]
    return [*start, *blocks, *closing()]
