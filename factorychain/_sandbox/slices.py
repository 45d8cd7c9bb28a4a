"""How long a thread may use a processor before the next one has its turn.

Who wakes up with shorter slices than those of whoever runs gets the processor at once (Linux 6.12 and
later, EEVDF; sched_setattr(2), `sched_runtime` of SCHED_OTHER). The services work for a fraction of a
millisecond at a time and agents' code for as long as it likes: without this every hop of an event waits
out somebody's slice on a busy machine. An earlier kernel has slices of one length and ignores it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import struct

from factorychain._sandbox import kernel

SHORT_NS = 100_000
"""The shortest that the kernel knows."""

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_SIZE = 48
"""Of `struct sched_attr` in its first version, which every kernel takes."""


def take_short_slices() -> None:
    """For the calling thread and every thread and process that it starts from now on."""
    _take(SHORT_NS)


def take_default_slices() -> None:
    """As everybody else."""
    _take(0)


def _take(slice_ns: int) -> None:
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return  # an operator who has chosen another policy has a reason
    # It sets the niceness too: to what it is.
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = struct.pack("IIQiIQQQ", _SIZE, os.SCHED_OTHER, 0, nice, 0, slice_ns, 0, 0)
    with contextlib.suppress(OSError):  # a filter of the container's may deny it
        kernel.syscall(number, 0, attributes, 0)
