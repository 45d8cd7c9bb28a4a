"""The conversation so far, as an agent sees it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from factorychain.input import Input, Json

RunState: TypeAlias = Literal["queued", "running", "waiting", "completed", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class PastRun:
    """An earlier run of the thread."""

    run: str
    agent: str
    state: RunState
    input: Input
    output: Json = None
    """What the agent returned; None unless it completed."""
    error: str = ""
    """Why it failed or was cancelled: the reason, such as `AGENT_ERROR`."""
    metadata: dict[str, Json] | None = None
    created_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def text(self) -> str:
        """The output if it is text, else nothing."""
        return self.output if isinstance(self.output, str) else ""
