"""When a run has lived too long, has fallen silent or has lost its agents: decisions without I/O.

Invariant: a run is only ever ended for silence that this process has watched. Time in which the
process itself stood still (stopped, swapped, starved) is not counted against the run: one look adds
at most `MAX_STEP_S`, however long ago the look before it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_STEP_S = 10.0


class EndReason(StrEnum):
    """Why a run is ended from outside."""

    USER = "USER"
    INTERRUPTED = "INTERRUPTED"
    DEADLINE = "DEADLINE"
    UNRESPONSIVE = "UNRESPONSIVE"
    AGENT_LOST = "AGENT_LOST"


@dataclass(frozen=True, slots=True)
class LifeLimits:
    """Bounds of a run's life, in seconds."""

    idle_s: float
    """Without a sign of life of the agent."""
    lost_s: float
    """Without a word from the agents replica."""
    cancel_grace_s: float
    """Between telling agents to cancel and settling the run without them."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Tell agents to end the run."""

    reason: EndReason


@dataclass(frozen=True, slots=True)
class Settle:
    """End the run without agents."""

    reason: EndReason


Step = Wait | Cancel | Settle
WAIT = Wait()


class Lifeline:
    """What is known of one run's life."""

    __slots__ = (
        "_cancel_reason",
        "_cancel_told_s",
        "_deadline_s",
        "_idle_s",
        "_limits",
        "_looked_at_s",
        "_silent_s",
    )

    def __init__(self, deadline_s: float, limits: LifeLimits, now_s: float) -> None:
        self._deadline_s = deadline_s
        self._limits = limits
        self._looked_at_s = now_s
        self._silent_s = 0.0
        self._idle_s = 0.0
        self._cancel_reason: EndReason | None = None
        self._cancel_told_s: float | None = None

    @property
    def cancel_reason(self) -> EndReason | None:
        return self._cancel_reason

    def heard(self, idle_s: float = 0.0) -> None:
        """The agents replica spoke; `idle_s` is how long it has not heard from the agent."""
        self._silent_s = 0.0
        self._idle_s = idle_s

    def cancel(self, reason: EndReason) -> None:
        """Somebody wants the run to end; the first reason stays."""
        if self._cancel_reason is None:
            self._cancel_reason = reason

    def look(self, now_s: float) -> Step:
        """What to do now. `Cancel` is repeated until the run ends: telling it twice does no harm."""
        step_s = self._advance(now_s)
        if self._silent_s >= self._limits.lost_s:
            return Settle(self._cancel_reason or EndReason.AGENT_LOST)
        if self._cancel_reason is None:
            self._cancel_reason = self._overdue(now_s)
        if self._cancel_reason is None:
            return WAIT
        if self._cancel_told_s is None:
            self._cancel_told_s = 0.0
        else:
            self._cancel_told_s += step_s
        if self._cancel_told_s >= self._limits.cancel_grace_s:
            return Settle(self._cancel_reason)
        return Cancel(self._cancel_reason)

    def _advance(self, now_s: float) -> float:
        step_s = min(max(now_s - self._looked_at_s, 0.0), MAX_STEP_S)
        self._looked_at_s = now_s
        self._silent_s += step_s
        self._idle_s += step_s
        return step_s

    def _overdue(self, now_s: float) -> EndReason | None:
        if now_s >= self._deadline_s:
            return EndReason.DEADLINE
        if self._idle_s >= self._limits.idle_s:
            return EndReason.UNRESPONSIVE
        return None
