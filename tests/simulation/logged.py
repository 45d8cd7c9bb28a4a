"""What stands in the log, one event at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from factorychain._core.event_kinds import ENDINGS
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain.types.v1.event_pb2 import Event
from tests.simulation.reality import EPOCH_S


@dataclass(frozen=True, slots=True)
class Logged:
    """One event in the log."""

    seq: int
    run: str
    attempt: int
    kind: str
    event: Event

    @property
    def at_s(self) -> float:
        """When it was said, in the simulation's time."""
        return self.event.at.seconds - EPOCH_S + self.event.at.nanos / 1e9

    @property
    def ends(self) -> bool:
        return self.kind in ENDINGS


def events_of(batch: LogBatch) -> Iterator[Logged]:
    """Those of one message of the log."""
    for number, event in enumerate(batch.events):
        kind = str(event.WhichOneof("event"))
        yield Logged(batch.first_seq + number, batch.run, batch.attempt, kind, event)
