"""What the chain's processes hold, as they say themselves when asked by SIGUSR1, and what NATS holds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any

from tests.e2e.chain import Chain

LAYERS = ("engine", "agents", "emitter", "bridge")


async def held(chain: Chain, layer: str) -> dict[str, Any]:
    """A layer's own statistics: tasks, descriptors, rss_bytes, objects by class, instruments."""
    position = chain.log_file.stat().st_size
    os.kill(chain.pid(layer), signal.SIGUSR1)
    async with asyncio.timeout(60):
        while True:
            found = _statistics(chain, layer, position)
            if found is not None:
                return found
            await asyncio.sleep(0.05)


def _statistics(chain: Chain, layer: str, position: int) -> dict[str, Any] | None:
    with chain.log_file.open("rb") as log:
        log.seek(position)
        for line in log:
            if b'"statistics"' in line and line.endswith(b"\n"):
                record: dict[str, Any] = json.loads(line)
                if record.get("event") == "statistics" and record.get("service") == layer:
                    return record
    return None
