"""A run that was admitted and waits for a place, as it stands in its user's record."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueuedRun:
    """One that waits. What it is to be started with stands in the bucket `queued`, under `kept`."""

    run: str
    thread: str
    agent: str
    request_hash: str
    """Of the request's body, as that of an active run."""
    kept: str
    """Names what was kept of this very start: the same request may be sent to two engines at once."""
    queued_at_s: float
    base: int
    """Stream sequence of the thread's last batch when the run was queued; 0: none."""
    base_seq: int
    base_epoch: int
    trace: str = ""
    replaces: str = ""
    plan: str = ""
    has_context: bool = False
    ending: str = ""
    """Why it is to end without having started; once this is set it never starts."""
    ending_message: str = ""
    """For the user; empty: what the reason says."""
