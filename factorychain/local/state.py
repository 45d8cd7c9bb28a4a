"""What `up` tells the outside: the ready file, and the same facts in the data directory.

Written atomically and again whenever a process is restarted, so that a reader sees a whole file. It
holds no credential.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(slots=True)
class ChainState:
    """Where everything is: addresses of the layers, pids of the processes."""

    edge: str
    engine: str
    agents: str
    emitter: str
    bridge: str
    nats: str
    pids: dict[str, list[int]] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Replaces the file at `path`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n")
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> ChainState | None:
        """What stands at `path`; None if nothing (readable) does."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None
