"""What the whole machine says about the end of a process."""

from __future__ import annotations

import contextlib
from pathlib import Path


def out_of_memory_kills(vmstat: Path = Path("/proc/vmstat")) -> int:
    """How many processes the kernel has killed for want of memory, also in control groups; 0: unknown."""
    with contextlib.suppress(OSError):
        for line in vmstat.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
