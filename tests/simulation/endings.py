"""Which ending a run may have: the one that was ordered, or one for which there was a cause.

It knows what users wanted and when, and what was away for how long; never what a service thinks. The
invariants:

- an agent that came to its end ended as it was told to, and with what it was told to say;
- a run is cancelled only if its user has asked for that, or for another start that interrupts its thread;
- DEADLINE comes only after a run's lifetime, to one that never ends by itself or was begun again in it;
- AGENT_LOST comes to a run that had begun only if agents died, were told to stop, or were out of the
  engines' reach for as long as configured; to one of which nothing was heard only if something was away;
- INPUT_LOST comes only to a run whose input storage has lost while it waited;
- CHAIN_DEGRADED comes only if the way to the log was broken for as long as configured;
- there is no other reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

import orjson
from google.protobuf import text_format

from factorychain._core.ids import Principal
from factorychain.types.v1.event_pb2 import Event
from tests.simulation import services
from tests.simulation.logged import Logged
from tests.simulation.orders import Order
from tests.simulation.reality import EPOCH_S

_LATE_S: Final = 4.0
"""So much later than a part is back others may notice: the longest back-off, and a call that waits."""
_SILENT_BEFORE_S: Final = 2.0
"""So long before that agents may have said the last word: they do not speak all the time."""
_TO_THE_LOG: Final = ("emitter", "bridge", "nats")
_ON_THE_WAY: Final = (("agents", "emitter"), ("emitter", "bridge"), ("bridge", "nats"))
_TO_AGENTS: Final = ("agents", "engine")


@dataclass
class Wanted:
    """A run that a user has asked for, whether or not it was admitted."""

    principal: Principal
    order: Order
    at_s: float
    resumes: bool
    """Whether it goes on for one that has ended with a question."""
    cancelled_at_s: float = inf


@dataclass
class _Away:
    what: tuple[str, ...]
    """The layer, or the two between which nothing passes."""
    from_s: float
    to_s: float
    dead: bool
    """Whether it forgets what it had."""


class Endings:
    """What explains the endings of one simulation."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.wanted: dict[str, Wanted] = {}
        self._now_s = now_s
        self._away: list[_Away] = []
        self._dead: dict[str, _Away] = {}
        self._inputs_lost: set[str] = set()

    # --- what users want --------------------------------------------------------------------

    def want(self, run: str, principal: Principal, order: Order, *, resumes: bool = False) -> None:
        """A user is about to ask for a run."""
        if run not in self.wanted:
            self.wanted[run] = Wanted(principal, order, self._now_s(), resumes)

    def cancel(self, run: str) -> None:
        """A user is about to ask for its end."""
        self.wanted[run].cancelled_at_s = self._now_s()

    # --- what goes wrong --------------------------------------------------------------------

    def away(self, *names: str, for_s: float) -> None:
        """A process stands still; or nothing passes between two."""
        layers = tuple(sorted(each.partition("-")[0] for each in names))
        now_s = self._now_s()
        self._away.append(_Away(layers, now_s, now_s + for_s, dead=False))

    def dies(self, name: str) -> None:
        """A process dies, or is told to stop."""
        if name not in self._dead:
            layer = name.partition("-")[0]
            self._dead[name] = _Away((layer,), self._now_s(), inf, dead=True)
            self._away.append(self._dead[name])

    def is_back(self, name: str) -> None:
        """It has started again."""
        if name in self._dead:
            self._dead.pop(name).to_s = self._now_s()

    def lose_input(self, run: str) -> None:
        """Storage forgets what a run that waits was wanted with."""
        self._inputs_lost.add(run)

    # --- at the end -------------------------------------------------------------------------

    def wrong(self, logged: Sequence[Logged]) -> list[str]:
        """What nothing explains among the endings of a thread."""
        runs: dict[str, list[Logged]] = {}
        for each in logged:
            runs.setdefault(each.run, []).append(each)
        return [
            f"{run} has an ending that nothing explains: {_in_a_line(own[-1].event)} for {self.wanted.get(run)}"
            for run, own in runs.items()
            if own[-1].ends and not self._is_explained(run, own)
        ]

    def _is_explained(self, run: str, own: Sequence[Logged]) -> bool:
        wanted = self.wanted.get(run)
        if wanted is None:
            return False
        end = own[-1].event
        at_s = end.at.ToMicroseconds() / 1e6 - EPOCH_S + 0.001
        if own[-1].kind == "agent_completed":
            return _as_ordered(
                wanted, end.agent_completed.output_json, len(end.agent_completed.pending)
            )
        if own[-1].kind == "agent_cancelled":
            return self._was_asked_for(run, wanted, end.agent_cancelled.reason, at_s)
        begins = sum(each.kind == "agent_started" for each in own)
        if end.agent_failed.reason == "INPUT_LOST":
            return run in self._inputs_lost and not begins
        return self._may_fail(wanted, end.agent_failed.reason, at_s, begins)

    def _was_asked_for(self, run: str, wanted: Wanted, reason: str, at_s: float) -> bool:
        if reason == "USER":
            return wanted.cancelled_at_s <= at_s
        return reason == "INTERRUPTED" and any(
            other.order.on_busy == "interrupt" and other.order.thread == wanted.order.thread
            for name, other in self.wanted.items()
            if name != run and other.principal == wanted.principal
            and other.at_s <= at_s and not other.resumes
        )  # fmt: skip

    def _may_fail(self, wanted: Wanted, reason: str, at_s: float, begins: int) -> bool:
        end = orjson.loads(wanted.order.input)["end"]
        if reason == "AGENT_ERROR":
            return bool(end == "fail")
        if reason == "DEADLINE":
            long = end == "hang" or begins > 1
            return bool(long) and at_s >= wanted.at_s + services.RUN_LIFETIME_S
        if reason == "CHAIN_DEGRADED":
            return self._lasted(services.OUTAGE_MAX_S, at_s, self._before_the_log(at_s))
        if reason == "AGENT_LOST":
            return self._may_be_lost(at_s, began=begins > 0)
        return False

    def _may_be_lost(self, at_s: float, *, began: bool) -> bool:
        before = [each for each in self._away if each.from_s <= at_s]
        if any(each.dead and each.what == ("agents",) for each in before):
            return True
        if not began:  # nobody may know that agents have it, or they have it not
            return bool(before)
        out_of_reach = [e for e in before if e.what in (*((x,) for x in _TO_AGENTS), _TO_AGENTS)]
        return self._lasted(services.AGENTS_LOST_AFTER_S - _SILENT_BEFORE_S, at_s, out_of_reach)

    def _before_the_log(self, at_s: float) -> list[_Away]:
        parts = (*((each,) for each in _TO_THE_LOG), *_ON_THE_WAY)
        return [each for each in self._away if each.what in parts and each.from_s <= at_s]

    @staticmethod
    def _lasted(wanted_s: float, at_s: float, away: Iterable[_Away]) -> bool:
        """Whether something was away for so long at a stretch."""
        from_s, to_s = -inf, -inf
        for each in sorted(away, key=lambda each: each.from_s):
            if each.from_s > to_s:
                from_s = each.from_s
            to_s = max(to_s, min(each.to_s + _LATE_S, at_s))
            if to_s - from_s >= wanted_s:
                return True
        return False


def _as_ordered(wanted: Wanted, output: str, pending: int) -> bool:
    told = orjson.loads(wanted.order.input)
    if told["end"] == "interrupt" and not wanted.resumes:
        return pending == 1
    return told["end"] in ("complete", "interrupt") and not pending and told["canary"] in output


def _in_a_line(event: Event) -> str:
    return text_format.MessageToString(event, as_one_line=True)
