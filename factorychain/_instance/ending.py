"""The first event and the ending of a run, made by its host: never by the agent's own code."""

from __future__ import annotations

from typing import Final

from factorychain._instance.events import fill_request, new_event
from factorychain._instance.spec import Outcome, OutcomeKind, RunSpec
from factorychain._instance.values import error_reason, error_text
from factorychain.types.v1 import event_pb2
from factorychain.usage import Usage

CANCELS: Final = frozenset({"USER", "INTERRUPTED"})
"""Reasons of a cancel that end a run as `agent_cancelled`; with others it has failed."""

_FAILED_BECAUSE: Final = {
    "DEADLINE": "The agent did not finish in the time that a run may take",
    "UNRESPONSIVE": "The agent gave no sign of life any more",
    "MEMORY_LIMIT": "The agent needed more memory than a run may have",
    "CPU_LIMIT": "The agent needed more processor time than a run may have",
    "CRASHED": "The agent's process ended before the agent had finished",
    "AGENT_LOST": "The agent was stopped before it could finish; start it again",
    "CHAIN_DEGRADED": "What the agent said could not be stored for too long; start it again",
}
_RETRYABLE: Final = frozenset({"AGENT_LOST", "UNRESPONSIVE", "DEADLINE", "CHAIN_DEGRADED"})


def started_event(spec: RunSpec) -> bytes:
    """`agent_started`."""
    event = new_event(spec.trace)
    data = event.agent_started
    data.agent = spec.agent
    data.input_json = spec.input_json
    data.metadata_json = spec.metadata_json or "{}"
    data.attempt = spec.attempt
    if spec.replaces:
        data.replaces = spec.replaces
    if spec.resumes:
        data.resumes = spec.resumes
    return event.SerializeToString()


def cancelled(reason: str, usage: Usage) -> Outcome:
    """What a run came to that was stopped for a reason, whatever its code did afterwards."""
    if reason in CANCELS:
        return Outcome(OutcomeKind.CANCELLED, reason=reason, usage=usage)
    text = _FAILED_BECAUSE.get(reason, "The run was stopped")
    retryable = reason in _RETRYABLE
    return Outcome(OutcomeKind.FAILED, reason=reason, text=text, retryable=retryable, usage=usage)


def ending_event(spec: RunSpec, outcome: Outcome, duration_s: float) -> bytes:
    """`agent_completed`, `agent_failed` or `agent_cancelled`."""
    event = new_event(spec.trace)
    if outcome.kind is OutcomeKind.COMPLETED:
        done = event.agent_completed
        done.output_json = outcome.output_json
        if outcome.message:
            done.message = outcome.message
        for asked in outcome.pending:
            fill_request(done.pending.add(), asked)
        done.duration_ms = int(duration_s * 1000)
        _count(done.usage, outcome.usage)
    elif outcome.kind is OutcomeKind.CANCELLED:
        event.agent_cancelled.reason = outcome.reason or "USER"
        _count(event.agent_cancelled.usage, outcome.usage)
    else:
        failed = event.agent_failed
        failed.reason = error_reason(outcome.reason, "AGENT_ERROR")
        failed.message = error_text(outcome.text) or f"The agent failed (run {spec.run})"
        failed.retryable = outcome.retryable
        if outcome.retry_after_s is not None:
            failed.retry_after_s = outcome.retry_after_s
        _count(failed.usage, outcome.usage)
    return event.SerializeToString()


def _count(into: event_pb2.Usage, usage: Usage) -> None:
    into.input_tokens = usage.input_tokens
    into.output_tokens = usage.output_tokens
    into.cached_input_tokens = usage.cached_input_tokens
    into.reasoning_tokens = usage.reasoning_tokens
    into.requests = usage.requests
