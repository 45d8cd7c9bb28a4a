"""What a start comes to."""

from __future__ import annotations

from dataclasses import dataclass

from factorychain._core.execution_context import UserExecutionContext
from factorychain.types.v1.run_pb2 import Run
from factorychain_engine.admission.queued_run import QueuedRun
from factorychain_engine.admission.record import ActiveRun


@dataclass(frozen=True, slots=True)
class Started:
    """What a start answers."""

    run: str
    thread: str
    epoch: int
    after: int
    trace: str
    existing: bool
    position: int = 0
    """In the queue of the run's user, 1 is next; 0: it does not wait."""

    @classmethod
    def of_entry(cls, entry: ActiveRun, *, existing: bool) -> Started:
        return cls(entry.run, entry.thread, entry.epoch, entry.after, entry.trace, existing)

    @classmethod
    def of_queued(cls, entry: QueuedRun, position: int, *, existing: bool) -> Started:
        epoch, after = entry.base_epoch, entry.base_seq
        return cls(entry.run, entry.thread, epoch, after, entry.trace, existing, position)

    @classmethod
    def of_record(cls, run: Run) -> Started:
        return cls(run.run, run.thread, run.epoch, run.after, run.trace, existing=True)


@dataclass(frozen=True, slots=True)
class Taken:
    """A place that was taken."""

    entry: ActiveRun
    context: UserExecutionContext
    """For agents, with the run's token."""
    took_s: float
    """How long the attempt that succeeded took: what it read, the decision and what it stored."""
    problem: Exception | None = None
    """Why the place must be left again: the start was there before, or nobody knows."""


class Enqueued(Exception):
    """The start waits: it takes no place now, and its run is admitted."""

    def __init__(self, started: Started) -> None:
        super().__init__(started.run)
        self.started = started


class AlreadyStarted(Exception):
    """The same request has started its run before: no place is taken."""

    def __init__(self, started: Started) -> None:
        super().__init__(started.run)
        self.started = started
