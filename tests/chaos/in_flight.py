"""How many runs a part of the chain has: its process says so when it gets SIGUSR1.

Invariant: what did not answer has none, so that a fault never counts for runs that nobody has seen there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from tests.chaos.forms import layer_of

GAUGES: Final = {
    "engine": "factorychain.engine.active_runs",
    "agents": "factorychain.agents.runs",
    "emitter": "factorychain.emitter.emitters",
    "bridge": "factorychain.bridge.routes",
}
"""What a layer calls the runs that a process of it has; what is not here (NATS, the edge) has those of all."""


def runs_said(log: Path, offset: int, process: str) -> int | None:
    """What a process has written behind `offset`; None: nothing yet."""
    layer = layer_of(process)
    with log.open("rb") as lines:
        lines.seek(offset)
        for line in lines:
            if b'"statistics"' in line and line.endswith(b"\n"):
                record = json.loads(line)
                if record.get("event") == "statistics" and record.get("service") == layer:
                    return int(record["instruments"].get(GAUGES[layer], 0))
    return None
