"""What a stream is made with, and whether an existing one is that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from factorychain._core.stored import StorageRefused


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """What a stream is made with; the fields have the server's names where they have a counterpart."""

    name: str
    subjects: Sequence[str]
    max_age_s: float = 0
    """0 keeps messages for ever."""
    max_bytes: int = -1
    max_msgs_per_subject: int = -1
    max_msg_size: int = -1
    replicas: int = 1
    republish: tuple[str, str] | None = None
    """Source and destination subject."""
    rollup: bool = False
    discard_new: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Must be the same on the server; for instance the number of shards."""

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "name": self.name,
            "subjects": list(self.subjects),
            "retention": "limits",
            "storage": "file",
            "discard": "new" if self.discard_new else "old",
            "max_age": int(self.max_age_s * 1e9),
            "max_bytes": self.max_bytes,
            "max_msgs": -1,
            "max_msgs_per_subject": self.max_msgs_per_subject,
            "max_msg_size": self.max_msg_size,
            "max_consumers": -1,
            "num_replicas": self.replicas,
            # Nobody uses message ids; the shortest window costs the least memory.
            "duplicate_window": 100_000_000,
            "allow_direct": True,
            "allow_rollup_hdrs": self.rollup,
            "allow_msg_ttl": True,
            "metadata": dict(self.metadata),
        }
        if self.republish:
            body["republish"] = {"src": self.republish[0], "dest": self.republish[1]}
        return body


def check_metadata(config: StreamConfig, existing: Mapping[str, Any]) -> None:
    """Check what an existing stream was made with and cannot change.

    Raises:
        StorageRefused: it is not what `config` says.
    """
    found = existing.get("metadata") or {}
    for name, value in config.metadata.items():
        if found.get(name) != value:
            raise StorageRefused(
                config.name,
                0,
                f"was made with {name}={found.get(name)}, this service is configured with {value}",
            )


def differs(wanted: Mapping[str, Any], existing: Mapping[str, Any]) -> bool:
    """Whether an existing stream's configuration must be updated; the server adds fields of its own."""
    for name, value in wanted.items():
        if name == "metadata":
            continue
        found = existing.get(name)
        if found != value and (found or value):
            return True
    return False
