"""How long users wait after a fault: for the first event that was made after it, and for the first start.

Times are from the beginning of a fault, so that they hold how long it lasted.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime

from tests.chaos.client import Frame
from tests.chaos.user import Watcher


@dataclass(slots=True)
class Recovery:
    """One fault, as users felt it."""

    began: float
    event_s: float | None = None
    """Until somebody saw an event that was made after it began."""
    start_s: float | None = None
    """Until a start was accepted that was asked for after it began."""
    over: float | None = None
    """When it was undone; None while it lasts."""
    event_after: bool = False
    """Whether an event was seen that was made after it was over, and a start likewise."""
    start_after: bool = False
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def undone(self) -> None:
        """It is over."""
        self.over = time.time()

    def event(self, made: float, now: float) -> None:
        if made > self.began and self.event_s is None:
            self.event_s = now - self.began
        if self.over is not None and made > self.over:
            self.event_after = True
            self._look()

    def start(self, sent: float, now: float) -> None:
        if sent > self.began and self.start_s is None:
            self.start_s = now - self.began
        if self.over is not None and now > self.over:
            self.start_after = True
            self._look()

    def _look(self) -> None:
        if self.event_after and self.start_after:
            self.done.set()


class RecoveryWatch(Watcher):
    """Tells the fault that is watched what users see."""

    def __init__(self) -> None:
        self.watched: Recovery | None = None

    def event(self, event: Frame) -> None:
        if self.watched is not None and not self.watched.event_after:
            self.watched.event(datetime.fromisoformat(event["at"]).timestamp(), time.time())

    def started(self, sent_at: float) -> None:
        if self.watched is not None:
            self.watched.start(sent_at, time.time())
