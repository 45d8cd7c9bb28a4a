"""What an agent's class asks for, of where its runs are and what they may do there.

Invariant: needs that exist can be granted or refused as they stand: every value has been checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Isolation: TypeAlias = Literal["process", "task"]


@dataclass(frozen=True, slots=True)
class Needs:
    """What one agent declares."""

    isolation: Isolation | None = None
    """None: as the operator chooses."""
    memory_bytes: int = 0
    """0: what the operator allows."""
    cpu_s: float = 0.0
    """0: what the operator allows."""
    lifetime_s: float = 0.0
    """0: what the operator allows."""
    read_paths: tuple[str, ...] = ()
    """Absolute."""
    network_ports: tuple[int, ...] = ()
    env: tuple[str, ...] = ()
    processes: bool = False


def wider(inner: Needs, outer: Needs) -> str:
    """What the one may do and the other may not, in words that name the attribute; empty: nothing.

    Limits are none of it: whoever is inside shares those of what it is in.
    """
    ports = set(inner.network_ports) - set(outer.network_ports)
    variables = set(inner.env) - set(outer.env)
    outside = [each for each in inner.read_paths if not _readable(each, outer.read_paths)]
    for name, more in (
        ("read_paths", outside),
        ("network_ports", sorted(ports)),
        ("env", sorted(variables)),
        ("processes", [True] if inner.processes and not outer.processes else []),
    ):
        if more:
            listed = ", ".join(str(each) for each in more)
            return f"{name}: it declares {listed}, which the agent that the run began with does not"
    return ""


def _readable(path: str, paths: Sequence[str]) -> bool:
    return any(Path(path).is_relative_to(each) for each in paths)
