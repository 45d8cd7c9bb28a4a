"""What a run's ending makes of its record, and the ending that the engine itself may speak.

Invariant: the outcome in a record is a projection of the run's ending in the log and of nothing
else; a record that shows an ending never changes to another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from factorychain.types.v1.event_pb2 import Event, Usage
from factorychain.types.v1.run_pb2 import Run, RunError, RunState
from factorychain_engine.admission.record import NOTHING_USED, ActiveRun, Totals
from factorychain_engine.lifeline import EndReason

_CANCELLED_BY: Final[frozenset[str]] = frozenset({EndReason.USER, EndReason.INTERRUPTED})

_FAILED_MESSAGES: Final[Mapping[str, str]] = {
    EndReason.DEADLINE: "The run took longer than it may and was ended",
    EndReason.UNRESPONSIVE: "The agent gave no sign of life and was ended",
    EndReason.AGENT_LOST: "The agent was lost before it had finished",
    EndReason.QUEUE_TIMEOUT: "The run waited for a place for longer than it may",
}
_REFUSED_MESSAGE: Final = "The run had waited and could not be started"

ENDED_STATES: Final = frozenset(
    {
        RunState.RUN_STATE_COMPLETED,
        RunState.RUN_STATE_FAILED,
        RunState.RUN_STATE_CANCELLED,
    }
)


def has_ended(run: Run) -> bool:
    """Whether the record shows an ending."""
    return run.state in ENDED_STATES


def ending_of(reason: str, now_s: float, trace: str, message: str = "") -> Event:
    """The event that ends a run which its agents cannot, or would not, end.

    `reason` is an `EndReason`, or what a run that had waited was refused with, with its message.
    """
    event = Event(at=timestamp(now_s), trace=trace)
    if reason in _CANCELLED_BY:
        event.agent_cancelled.reason = str(reason)
        return event
    event.agent_failed.reason = str(reason)
    event.agent_failed.message = message or _FAILED_MESSAGES.get(reason, _REFUSED_MESSAGE)
    event.agent_failed.retryable = reason in _FAILED_MESSAGES
    return event


def project(run: Run, ending: Event, attempt: int = 0) -> Run:
    """The record after the ending that `attempt` has (0: the record's); one that has ended already stays
    as it is.

    Raises:
        ValueError: the event is no ending.
    """
    if has_ended(run):
        return run
    ended = Run()
    ended.CopyFrom(run)
    ended.ended_at.CopyFrom(ending.at)
    ended.attempt = attempt or run.attempt
    ended.ClearField("context")  # no later attempt will need it
    kind = ending.WhichOneof("event")
    if kind == "agent_completed":
        _complete(ended, ending)
    elif kind == "agent_failed":
        _fail(ended, ending)
    elif kind == "agent_cancelled":
        _cancel(ended, ending)
    else:
        raise ValueError(f"run {run.run}: {kind} is not an ending")
    return ended


def begun(run: Run, started: Event) -> Run:
    """A record made again from `agent_started`, for a run whose engine died before it wrote one."""
    made = Run()
    made.CopyFrom(run)
    event = started.agent_started
    made.agent = event.agent or run.agent
    made.input_json = event.input_json
    made.metadata_json = event.metadata_json
    made.replaces = event.replaces
    made.resumes = event.resumes
    made.attempt = event.attempt or run.attempt
    return made


def used_by(run: Run, entry: ActiveRun) -> Totals:
    """What an ended run adds to its user's totals when it leaves this place: nothing if it was an
    earlier place in which it ran.
    """
    if (run.after, run.epoch) != (entry.after, entry.epoch):
        return NOTHING_USED
    usage = run.usage
    return Totals(
        1,
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_input_tokens,
        usage.reasoning_tokens,
        usage.requests,
    )


def usage_of(totals: Totals) -> Usage:
    """The totals as the message that is sent."""
    return Usage(
        input_tokens=totals.input_tokens,
        output_tokens=totals.output_tokens,
        cached_input_tokens=totals.cached_input_tokens,
        reasoning_tokens=totals.reasoning_tokens,
        requests=totals.requests,
    )


def ended_at_s(run: Run, now_s: float) -> float:
    """When a run ended, as Unix seconds; `now_s` if its ending does not say."""
    return run.ended_at.ToNanoseconds() / 1e9 or now_s


def timestamp(now_s: float) -> Timestamp:
    """Unix seconds as a timestamp, cut to microseconds."""
    micros = int(now_s * 1_000_000)
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def _complete(run: Run, ending: Event) -> None:
    completed = ending.agent_completed
    run.state = RunState.RUN_STATE_COMPLETED
    run.output_json = completed.output_json
    run.usage.CopyFrom(completed.usage)
    run.pending.extend(completed.pending)


def _fail(run: Run, ending: Event) -> None:
    failed = ending.agent_failed
    run.state = RunState.RUN_STATE_FAILED
    run.usage.CopyFrom(failed.usage)
    error = RunError(reason=failed.reason, message=failed.message, retryable=failed.retryable)
    if failed.HasField("retry_after_s"):
        error.retry_after_s = failed.retry_after_s
    run.error.CopyFrom(error)


def _cancel(run: Run, ending: Event) -> None:
    cancelled = ending.agent_cancelled
    run.state = RunState.RUN_STATE_CANCELLED
    run.usage.CopyFrom(cancelled.usage)
    run.error.CopyFrom(RunError(reason=cancelled.reason, message="The run was cancelled"))
