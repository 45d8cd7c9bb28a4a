"""The state of the bridge's integration with what it needs. No I/O: told what happened, it decides.

    UNINITIALIZED → INITIALIZING → ACTIVE ⇄ DEGRADED → FAILED → ACTIVE

Invariants: only what was proved to work makes it ACTIVE; an outage is tried at most `attempts` times,
with delays that double, before it is FAILED; a failed integration goes on being tried at the last
delay, so that it recovers by itself when nobody replaces the process. Every change has a cause.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class IntegrationState(StrEnum):
    """Where the integration stands."""

    UNINITIALIZED = "UNINITIALIZED"
    """Nothing has been tried."""
    INITIALIZING = "INITIALIZING"
    """Connecting."""
    ACTIVE = "ACTIVE"
    """Serving."""
    DEGRADED = "DEGRADED"
    """Something that is needed is away: sockets stay, appends wait, no new work is asked for."""
    FAILED = "FAILED"
    """Recovery is exhausted: the process is unhealthy, so that its supervisor replaces it."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of state."""

    before: IntegrationState
    after: IntegrationState
    cause: str


class Integration:
    """The state machine."""

    def __init__(self, *, attempts: int, delay_s: float, now_s: Callable[[], float]) -> None:
        self._max_attempts = attempts
        self._delay_s = delay_s
        self._now_s = now_s
        self._listeners: list[Callable[[Change], None]] = []
        self.state = IntegrationState.UNINITIALIZED
        self.cause = "not started"
        self.since_s = now_s()
        """Unix seconds of the last change."""
        self.attempts = 0
        """Recovery attempts in the present outage."""
        self.transitions = 0

    @property
    def active(self) -> bool:
        """Whether new work is taken."""
        return self.state is IntegrationState.ACTIVE

    @property
    def failed(self) -> bool:
        return self.state is IntegrationState.FAILED

    @property
    def next_delay_s(self) -> float | None:
        """How long to wait before the next attempt; None: there is nothing to recover."""
        if self.state not in (IntegrationState.DEGRADED, IntegrationState.FAILED):
            return None
        doublings = min(self.attempts, max(self._max_attempts - 1, 0))
        return float(self._delay_s * 2**doublings)

    def on_change(self, listener: Callable[[Change], None]) -> None:
        """Call `listener` with every change; it must not block or raise."""
        self._listeners.append(listener)

    def begin(self) -> None:
        """The first attempt begins."""
        self._enter(IntegrationState.INITIALIZING, "starting")

    def works(self, cause: str) -> None:
        """A probe of everything that is needed has succeeded."""
        self.attempts = 0
        self._enter(IntegrationState.ACTIVE, cause)

    def lost(self, cause: str) -> None:
        """Something that is needed has gone, or did not come at the start."""
        if self.state in (IntegrationState.INITIALIZING, IntegrationState.ACTIVE):
            self._enter(IntegrationState.DEGRADED, cause)

    def attempt_failed(self, cause: str) -> None:
        """A recovery attempt was made at its time and did not succeed."""
        if self.state is not IntegrationState.DEGRADED:
            return
        self.attempts += 1
        if self.attempts >= self._max_attempts:
            self._enter(
                IntegrationState.FAILED, f"{self.attempts} recovery attempts failed: {cause}"
            )

    def _enter(self, state: IntegrationState, cause: str) -> None:
        if state is self.state:
            return
        change = Change(self.state, state, cause)
        self.state, self.cause, self.since_s = state, cause, self._now_s()
        self.transitions += 1
        for listener in self._listeners:
            listener(change)
