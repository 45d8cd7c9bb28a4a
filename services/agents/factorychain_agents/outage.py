"""Whether what a run says has got nowhere for too long.

Invariant: only time counts in which this process has watched, as in the engine's `lifeline`: one look adds
at most two intervals, however long ago the look before it was. Whatever is confirmed begins it anew, and
what the emitter may hold back on purpose (deltas, which could be the beginning of a secret) does not count.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

_LOOKS: Final = 10
"""How often it is looked within the time that an outage may last."""


class Outage:
    """For how long nothing of a run was confirmed that should have been: decisions without I/O."""

    __slots__ = ("_durable", "_lasted_s", "_looked_at_s", "_max_s", "_owed", "look_s")

    def __init__(self, max_s: float, now_s: float) -> None:
        """`max_s`: how long it may last."""
        self._max_s = max_s
        self.look_s = max_s / _LOOKS
        """The interval in which to call `look`."""
        self._looked_at_s = now_s
        self._durable = 0
        self._owed = False
        self._lasted_s = 0.0

    def look(self, now_s: float, durable: int, *, owed: bool) -> bool:
        """Whether it has lasted for too long. `durable`: up to which number everything is confirmed; `owed`:
        whether something that nobody holds back is not.
        """
        step_s = min(max(now_s - self._looked_at_s, 0.0), 2 * self.look_s)
        self._looked_at_s = now_s
        # What is owed for the first time may have been said just now.
        goes_on = owed and self._owed and durable <= self._durable
        self._lasted_s = self._lasted_s + step_s if goes_on else 0.0
        self._owed, self._durable = owed, durable
        return self._lasted_s >= self._max_s


class Saying(Protocol):
    """What is looked at (`InstanceHost`)."""

    @property
    def durable_run_seq(self) -> int: ...

    @property
    def owed(self) -> bool: ...


class OutageWatch:
    """Looks at one run again and again."""

    def __init__(self, max_s: float, too_long: Callable[[], None]) -> None:
        """`too_long` is called once, when an outage has lasted for `max_s`."""
        self._max_s = max_s
        self._too_long = too_long
        self._next: asyncio.TimerHandle | None = None

    def start(self, saying: Saying) -> None:
        outage = Outage(self._max_s, time.monotonic())
        loop = asyncio.get_running_loop()

        def look() -> None:
            if outage.look(time.monotonic(), saying.durable_run_seq, owed=saying.owed):
                self._too_long()
            else:
                self._next = loop.call_later(outage.look_s, look)

        self._next = loop.call_later(outage.look_s, look)

    def stop(self) -> None:
        if self._next is not None:
            self._next.cancel()
