"""When a run has lived too long, has fallen silent or has lost its agents: decisions without I/O.

Invariant: a run is only ever ended for silence that this process has watched since the last word. Time in
which the process itself stood still (stopped, swapped, starved) is not counted against the run: one look
adds at most `MAX_STEP_S`, or a third of the silence that means a loss, however long ago the look before
it was. The deadline moves by the time for which the run has waited for its user (up to a maximum), which
its agents replica knows: without a word from there it ends no run. The first reason stays. Unless nothing
is heard of them, agents are told to end a run, and have the grace to do it, before it is settled without
them; and in the end every run is.
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
    QUEUE_TIMEOUT = "QUEUE_TIMEOUT"


@dataclass(frozen=True, slots=True)
class LifeLimits:
    """Bounds of a run's life, in seconds."""

    idle_s: float
    """Without a sign of life of the agent."""
    lost_s: float
    """Without a word from the agents replica."""
    cancel_grace_s: float
    """Between telling agents to cancel and settling the run without them."""
    ask_max_s: float = 3600.0
    """Waiting for the user's answers, which does not count as lifetime."""


@dataclass(frozen=True, slots=True)
class Sign:
    """What the agents replica says of a run's life."""

    idle_s: float = 0.0
    """Since the agent's last sign of life."""
    waited_s: float = 0.0
    """For how long it has waited for its user."""
    waiting: bool = False
    """Whether it waits now."""


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
        "_heard_at_s",
        "_idle_s",
        "_known",
        "_limits",
        "_looked_at_s",
        "_sign",
        "_silent_s",
    )

    def __init__(
        self, deadline_s: float, limits: LifeLimits, now_s: float, *, known: bool = True
    ) -> None:
        """`known`: the run begins now, so that it has not waited for its user yet."""
        self._deadline_s = deadline_s
        self._limits = limits
        self._looked_at_s = now_s
        self._heard_at_s = now_s
        self._sign = Sign()
        self._known = known
        self._silent_s = 0.0
        self._idle_s = 0.0
        self._cancel_reason: EndReason | None = None
        self._cancel_told_s: float | None = None

    @property
    def cancel_reason(self) -> EndReason | None:
        return self._cancel_reason

    @property
    def waiting(self) -> bool:
        """Whether the run waits for its user, as far as is known."""
        return self._sign.waiting

    def waited_s(self, now_s: float) -> float:
        """For how long the run has waited for its user, as far as is known."""
        present_s = max(0.0, now_s - self._heard_at_s) if self._sign.waiting else 0.0
        return min(self._sign.waited_s + present_s, self._limits.ask_max_s)

    def deadline_s(self, now_s: float) -> float:
        """When the run must have ended if it waits no longer."""
        return self._deadline_s + self.waited_s(now_s)

    def heard(self, now_s: float, sign: Sign | None = None) -> None:
        """The agents replica spoke, and may have said how the run is."""
        # The next look adds all the time since the last one: what lies before this word was no silence.
        before_s = self._step_s(now_s)
        self._silent_s = -before_s
        self._idle_s = -before_s
        if sign is not None:
            self._idle_s += sign.idle_s
            self._sign, self._heard_at_s, self._known = sign, now_s, True

    def unheard(self) -> None:
        """Nothing is heard of the run any more: it may begin to wait for its user without a word."""
        self._known = False

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
        step_s = self._step_s(now_s)
        self._looked_at_s = now_s
        self._silent_s += step_s
        self._idle_s += step_s
        return step_s

    def _step_s(self, now_s: float) -> float:
        most_s = min(MAX_STEP_S, self._limits.lost_s / 3)
        return min(max(now_s - self._looked_at_s, 0.0), most_s)

    def _overdue(self, now_s: float) -> EndReason | None:
        if self._known and now_s >= self.deadline_s(now_s):
            return EndReason.DEADLINE
        if self._idle_s >= self._limits.idle_s:
            return EndReason.UNRESPONSIVE
        return None
