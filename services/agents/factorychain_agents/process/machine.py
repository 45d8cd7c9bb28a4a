"""What the whole machine says about the end of a process."""

from __future__ import annotations

import contextlib
from pathlib import Path


class OutOfMemory:
    """Whether the kernel has killed somebody for want of memory lately, also in a control group."""

    def __init__(self, vmstat: Path = Path("/proc/vmstat")) -> None:
        self._vmstat = vmstat
        self._earlier = self._latest = self._kills()

    def tick(self) -> None:
        """Time passes: what was two ticks ago is not lately any more."""
        self._earlier, self._latest = self._latest, self._kills()

    def lately(self) -> bool:
        return self._kills() > self._earlier

    def _kills(self) -> int:
        with contextlib.suppress(OSError):
            for line in self._vmstat.read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        return 0
