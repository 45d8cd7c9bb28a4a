"""Which ending a run may have: the one that was ordered, or one for which there was a cause.

It knows what users wanted and when, and what was away for how long; never what a service thinks. The
invariants:

- an agent that came to its end ended as it was told to, and with what it was told to say;
- a run is cancelled only if its user has asked for that, or for another start that interrupts its thread;
- DEADLINE comes only after a run's lifetime, to one that never ends by itself or was begun again in it;
- AGENT_LOST comes to a run that had begun only if agents that had it died, were told to stop, or were out
  of the engines' reach for as long as configured; to one of which nothing was heard only if something was
  away on its way to agents;
- INPUT_LOST comes only to a run whose input storage has lost while it waited;
- CHAIN_DEGRADED comes only if the way to the log was broken for as long as configured, and no agent goes
  on for longer (`attempts`);
- there is no other reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

import orjson
from google.protobuf import text_format

from factorychain._core.ids import Principal
from factorychain.types.v1.event_pb2 import Event
from tests.simulation import services
from tests.simulation.absences import Absence, Absences, lasted
from tests.simulation.attempts import MAY_GO_ON_S, Attempt
from tests.simulation.logged import Logged
from tests.simulation.orders import Order

_TO_AGENTS: Final = {"engine", "agents", "nats"}
"""By which a run reaches agents. NATS: an engine may not know of a place that it has taken for one."""
_LATE_S: Final = 4.0
"""So much later than a part is back others may notice: the longest back-off, and a call that waits."""
_SILENT_BEFORE_S: Final = 3.2
"""So long before that agents may have said the last word: they speak every three seconds."""
_SPEAKS_WITHIN_S: Final = 1.0
"""Agents that are back speak at once, but it may have to be on another stream."""
_TO_THE_LOG: Final = (
    {"emitter"}, {"bridge"}, {"nats"},
    {"agents", "emitter"}, {"emitter", "bridge"}, {"bridge", "nats"},
)  # fmt: skip


@dataclass
class Wanted:
    """A run that a user has asked for, whether or not it was admitted."""

    principal: Principal
    order: Order
    at_s: float
    resumes: bool
    """Whether it goes on for one that has ended with a question."""
    cancelled_at_s: float = inf


class Endings:
    """What explains the endings of one simulation."""

    def __init__(self, now_s: Callable[[], float], absences: Absences) -> None:
        self.wanted: dict[str, Wanted] = {}
        self._now_s = now_s
        self._absences = absences
        self._attempts: dict[str, list[Attempt]] = {}
        self._inputs_lost: set[str] = set()

    # --- what users want --------------------------------------------------------------------

    def want(self, run: str, principal: Principal, order: Order, *, resumes: bool = False) -> None:
        """A user is about to ask for a run."""
        if run not in self.wanted:
            self.wanted[run] = Wanted(principal, order, self._now_s(), resumes)

    def cancel(self, run: str) -> None:
        """A user is about to ask for its end."""
        self.wanted[run].cancelled_at_s = self._now_s()

    # --- what agents do ---------------------------------------------------------------------

    def accepted(self, run: str, number: int, replica: str) -> Attempt:
        """A replica has an attempt of a run."""
        attempt = Attempt(number, replica, self._now_s(), self._now_s)
        self._attempts.setdefault(run, []).append(attempt)
        return attempt

    # --- what storage does ------------------------------------------------------------------

    def lose_input(self, run: str) -> None:
        """Storage forgets what a run that waits was wanted with."""
        self._inputs_lost.add(run)

    # --- at the end -------------------------------------------------------------------------

    def wrong(self, logged: Sequence[Logged]) -> list[str]:
        """What nothing explains among the endings of a thread."""
        runs: dict[str, list[Logged]] = {}
        for each in logged:
            runs.setdefault(each.run, []).append(each)
        return [wrong for run, own in runs.items() for wrong in self._wrong(run, own)]

    def _wrong(self, run: str, own: Sequence[Logged]) -> Iterator[str]:
        if own[-1].ends and not self._is_explained(run, own):
            ending = _in_a_line(own[-1].event)
            yield f"{run} has an ending that nothing explains: {ending} for {self.wanted.get(run)}"
        if own[-1].at_s - own[0].at_s < MAY_GO_ON_S:
            return
        for attempt in self._attempts.get(run, ()):
            for_s = attempt.went_on_for_s(own, self._absences)
            if for_s > MAY_GO_ON_S:
                yield f"{run} went on for {for_s:.1f} s of which nothing was confirmed: {attempt}"

    def _is_explained(self, run: str, own: Sequence[Logged]) -> bool:
        wanted = self.wanted.get(run)
        if wanted is None:
            return False
        end = own[-1].event
        at_s = own[-1].at_s + 0.001
        if own[-1].kind == "agent_completed":
            return _as_ordered(
                wanted, end.agent_completed.output_json, len(end.agent_completed.pending)
            )
        if own[-1].kind == "agent_cancelled":
            return self._was_asked_for(run, wanted, end.agent_cancelled.reason, at_s)
        begins = sum(each.kind == "agent_started" for each in own)
        if end.agent_failed.reason == "INPUT_LOST":
            return run in self._inputs_lost and not begins
        return self._may_fail(run, wanted, end.agent_failed.reason, at_s, begins)

    def _was_asked_for(self, run: str, wanted: Wanted, reason: str, at_s: float) -> bool:
        if reason == "USER":
            return wanted.cancelled_at_s <= at_s
        return reason == "INTERRUPTED" and any(
            other.order.on_busy == "interrupt" and other.order.thread == wanted.order.thread
            for name, other in self.wanted.items()
            if name != run and other.principal == wanted.principal
            and other.at_s <= at_s and not other.resumes
        )  # fmt: skip

    def _may_fail(self, run: str, wanted: Wanted, reason: str, at_s: float, begins: int) -> bool:
        end = orjson.loads(wanted.order.input)["end"]
        if reason == "AGENT_ERROR":
            return bool(end == "fail")
        if reason == "DEADLINE":
            long = end == "hang" or begins > 1
            return bool(long) and at_s >= wanted.at_s + services.RUN_LIFETIME_S
        if reason == "CHAIN_DEGRADED":
            before = self._absences.between(0.0, at_s)
            to_the_log = [each for each in before if each.layers in _TO_THE_LOG]
            return lasted(services.OUTAGE_MAX_S, at_s, to_the_log, _LATE_S)
        if reason == "AGENT_LOST":
            return self._may_be_lost(run, at_s, began=begins > 0)
        return False

    def _may_be_lost(self, run: str, at_s: float, *, began: bool) -> bool:
        if not began:  # nobody may know that agents have it, or they have it not
            before = self._absences.between(self.wanted[run].at_s, at_s)
            return any(each.layers & _TO_AGENTS for each in before)
        return any(self._is_lost(attempt, at_s) for attempt in self._attempts.get(run, ()))

    def _is_lost(self, attempt: Attempt, at_s: float) -> bool:
        """Whether the replica that had it was away for long enough, or for ever."""
        meanwhile = self._absences.between(attempt.from_s, at_s)
        own = [each for each in meanwhile if _keeps_away(each, attempt.replica)]
        wanted_s = services.AGENTS_LOST_AFTER_S - _SILENT_BEFORE_S
        return any(each.dead for each in own) or lasted(wanted_s, at_s, own, _SPEAKS_WITHIN_S)


def _keeps_away(absence: Absence, replica: str) -> bool:
    """Whether it keeps agents from engines."""
    return replica in absence.names and absence.layers in ({"agents"}, {"agents", "engine"})


def _as_ordered(wanted: Wanted, output: str, pending: int) -> bool:
    told = orjson.loads(wanted.order.input)
    if told["end"] == "interrupt" and not wanted.resumes:
        return pending == 1
    return told["end"] in ("complete", "interrupt") and not pending and told["canary"] in output


def _in_a_line(event: Event) -> str:
    return text_format.MessageToString(event, as_one_line=True)
