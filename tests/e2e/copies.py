"""Which NATS servers of a cluster hold which streams, as the servers themselves say.

Invariant: a server counts for what is in its own store, not for what the cluster has planned for it.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_ASKED_S = 5.0


@dataclass(frozen=True, slots=True)
class Copy:
    """What one server has of one stream."""

    wanted: int
    """How many servers the stream is to be on."""
    last_seq: int
    """The newest message that this server has; a removed one counts."""


Copies = Mapping[str, Mapping[str, Copy]]
"""By stream and by server."""


async def copies(monitors: Sequence[str]) -> Copies:
    """Every stream there is, of whatever kind. `monitors`: where the servers that are to be asked say it.

    Raises:
        OSError: one of them does not answer.
    """
    answers = await asyncio.gather(*(asyncio.to_thread(_said_by, each) for each in monitors))
    found: dict[str, dict[str, Copy]] = {}
    for server, streams in zip(monitors, answers, strict=True):
        for name, each in streams.items():
            found.setdefault(name, {})[server] = each
    return found


def _said_by(monitor: str) -> dict[str, Copy]:
    url = f"{monitor}/jsz?accounts=true&streams=true&config=true"
    with urllib.request.urlopen(url, timeout=_ASKED_S) as answer:
        said = json.load(answer)
    return {
        stream["name"]: Copy(stream["config"]["num_replicas"], stream["state"]["last_seq"])
        for account in said.get("account_details", [])
        for stream in account.get("stream_detail", [])
    }
