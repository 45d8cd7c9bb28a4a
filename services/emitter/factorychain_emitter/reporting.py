"""What is said about events that were not passed on, and counted about those that were.

Invariant: no rejection is silent. Each is counted and answered; each is logged, up to a number a
run, and what was left out is summed up when the run is over, so that a flood of bad events cannot
drown the log. Nothing that an event says is logged, only its kind and what is wrong.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable

from factorychain._core import genai
from factorychain._core.event_kinds import KINDS, MISSION_CRITICAL, criticality_name
from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.logging import get_logger
from factorychain._core.metrics import counter, up_down_counter
from factorychain_emitter.rejection import Rejected

LOGGED_PER_RUN = 20

UNREADABLE = "unreadable"
"""Stands for the kind of what is no event."""

log = get_logger(__name__)

_passed = counter("factorychain.emitter.events", "Events passed on, by kind", "{event}")
_rejected = counter("factorychain.emitter.events.rejected", "Events not passed on", "{event}")
_redacted = counter("factorychain.emitter.redactions", "Secrets taken out, by kind", "{secret}")
_held = counter("factorychain.emitter.deltas.held", "Deltas held back as possible secrets")
_abandoned = counter("factorychain.emitter.calls.abandoned", "Calls closed by their run's ending")
_emitters = up_down_counter("factorychain.emitter.emitters", "Runs that are open", "{run}")

_passed_by_kind = {kind: _passed.labels({"kind": kind}) for kind in KINDS}

_IMPACT = {
    "agent_started": "the user does not see that the agent has begun",
    "agent_thinking": "the user does not see what the agent is about to do",
    "tool_executing": "the user does not see that a tool is called",
    "tool_completed": "the user does not see what a tool has found",
    "agent_completed": "the user waits for an answer that is there",
    "agent_failed": "the user waits for a run that has failed",
    "agent_cancelled": "the user waits for a run that was cancelled",
    "message_delta": "a piece of the answer is missing while it streams",
    "thinking_delta": "a piece of the reasoning is missing while it streams",
    "tool_progress": "progress of a tool is not shown",
    "input_requested": "the user is not asked and the agent waits in vain",
    "input_received": "the user does not see that the answer has arrived",
    "run_queued": "the user does not see that the run waits",
    "custom": "something that the agent's author shows is missing",
    UNREADABLE: "whatever the event says is missing",
}


class RunReport:
    """Counts and logs for one run."""

    def __init__(self, ctx: UserExecutionContext) -> None:
        self._fields = {
            genai.RUN: ctx.run,
            "thread": ctx.thread,
            "tenant": ctx.principal.tenant,
            "agent": ctx.agent,
            "attempt": ctx.attempt,
        }
        self._rejections: Tally[str] = Tally()
        self._redactions: Tally[str] = Tally()
        _emitters.add(1)

    def passed(self, kind: str) -> None:
        _passed_by_kind[kind].add(1)

    def held(self) -> None:
        _held.add(1)

    def abandoned(self, calls: int) -> None:
        _abandoned.add(calls)

    def redacted(self, names: Iterable[str]) -> None:
        for name in names:
            if not self._redactions[name]:
                log.warning("a secret was taken out of a run's events", secret=name, **self._fields)
            self._redactions[name] += 1
            _redacted.add(1, {"secret": name})

    def rejected(self, kind: str, run_seq: int, rejected: Rejected) -> None:
        criticality = criticality_name(kind)
        _rejected.add(1, {"kind": kind, "reason": rejected.reason, "criticality": criticality})
        self._rejections[rejected.reason] += 1
        if self._rejections.total() > LOGGED_PER_RUN:
            return
        critical = kind in MISSION_CRITICAL or kind == UNREADABLE
        say = log.critical if critical else log.warning
        say(
            "an event was rejected",
            kind=kind,
            run_seq=run_seq,
            reason=rejected.reason,
            problem=rejected.message,
            criticality=criticality,
            business_impact=_IMPACT[kind],
            **self._fields,
        )

    def close(self) -> None:
        _emitters.add(-1)
        if self._rejections.total() > LOGGED_PER_RUN:
            log.critical(
                "more events were rejected than were logged one by one",
                by_reason=dict(self._rejections),
                **self._fields,
            )
