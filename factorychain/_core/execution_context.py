"""What a layer knows about the run that it serves.

Invariant: a context comes from a verified transaction token (or from the engine that mints it) and
never changes; there is one per run and attempt, and nothing in it is shared with another run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from factorychain._core.ids import Principal


class Scope(StrEnum):
    """What a transaction token lets its bearer say."""

    RUN = "run"
    """Events of the run: handed to agents."""
    LIFECYCLE = "lifecycle"
    """`run_queued`, `agent_failed` and `agent_cancelled`: kept by the engine."""


@dataclass(frozen=True, slots=True)
class UserExecutionContext:
    """Identity and bounds of one attempt of one run."""

    principal: Principal
    """Whose run it is."""
    thread: str
    run: str
    agent: str
    attempt: int
    """1 for the first."""
    scope: Scope
    base: int
    """The thread's last stream sequence at admission; 0: there was none."""
    base_seq: int
    """Seq of the thread's last event at `base`; 0 for an empty thread."""
    base_epoch: int
    """Epoch at `base`, Unix ms; for an empty thread the one to start with."""
    deadline_s: float
    """Unix seconds by which the run must have ended."""
    expires_at_s: float
    """Unix seconds at which the token is worth nothing any more."""
    limits: Mapping[str, int] = field(hash=False)
    """Bounds that apply to this run; read-only."""
    token: str = field(repr=False)
    """The raw transaction token: forwarded, never logged, never given to agent code."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "limits", MappingProxyType(dict(self.limits)))
