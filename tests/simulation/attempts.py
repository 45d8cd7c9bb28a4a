"""Which agents replica had an attempt of a run, and what that replica was told to be in the log.

Invariant: agents say nothing more in a run of which nothing was confirmed for as long as an outage may last,
in time in which their process ran.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from tests.simulation import services
from tests.simulation.absences import Absences
from tests.simulation.logged import Logged

_SAID: Final = ("custom", "agent_thinking", "input_requested", "agent_completed")
"""What only an agent's code says, and no service in its place."""
MAY_GO_ON_S: Final = services.OUTAGE_MAX_S + 2.0
"""An outage is up to two looks older than agents know, who look ten times within its limit."""


@dataclass
class Attempt:
    """One attempt of a run, at the replica that accepted it."""

    number: int
    replica: str
    from_s: float
    now_s: Callable[[], float] = field(repr=False)
    _durable: int = 0
    _confirmed_s: list[float] = field(default_factory=list)

    def confirmed(self, run_seq: int) -> None:
        """Its agents were told that everything up to `run_seq` is in the log."""
        if run_seq > self._durable:
            self._durable = run_seq
            self._confirmed_s.append(self.now_s())

    def went_on_for_s(self, logged: Iterable[Logged], absences: Absences) -> float:
        """The longest time in which it still spoke and heard of nothing. `logged`: what the run's log has."""
        most_s, since_s, heard = 0.0, 0.0, -1
        for each in logged:
            if each.attempt != self.number or each.kind not in _SAID:
                continue
            before, heard = heard, bisect_right(self._confirmed_s, each.at_s)
            if heard != before:  # what it says now is the first of which it does not know
                since_s = each.at_s
            paused_s = absences.paused_s(self.replica, since_s, each.at_s)
            most_s = max(most_s, each.at_s - since_s - paused_s)
        return most_s
