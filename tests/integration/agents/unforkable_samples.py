"""Agents whose module does not survive a fork: it has a thread."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from factorychain import Agent, RunContext

_woken = threading.Event()
threading.Thread(target=_woken.wait, name="of the module", daemon=True).start()


class Threaded(Agent):
    """Needs the thread that its module has started."""

    name = "threaded"
    memory_bytes = 128 * 1024 * 1024

    async def run(self, ctx: RunContext, text: str) -> dict[str, object]:
        if text == "eat":
            kept = []
            while True:
                kept.append(bytearray(1024 * 1024))
        _woken.set()
        return {
            "pid": os.getpid(),
            "threads": [each.name for each in threading.enumerate()],
            "home": self._reads("/root"),
            "folder": str(Path.cwd()),
        }

    def _reads(self, path: str) -> bool:
        try:
            return bool(list(Path(path).iterdir()))
        except PermissionError:
            return False
