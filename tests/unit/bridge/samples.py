"""Contexts, events and stored batches for the bridge's unit tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from factorychain._core.execution_context import UserExecutionContext
from factorychain._core.ids import Principal
from factorychain.bridge.v1.log_pb2 import LogBatch
from factorychain.types.v1.event_pb2 import (
    AgentCancelled,
    AgentCompleted,
    AgentFailed,
    AgentStarted,
    AgentThinking,
    Event,
    MessageDelta,
    RunQueued,
    ThinkingDelta,
)
from factorychain_bridge.items import Stored
from tests.token_samples import run_context

EPOCH = 1_763_800_000_000
ANA = Principal("default", "ana")
BEN = Principal("default", "ben")
RUN = "r" + "a" * 24
OTHER_RUN = "r" + "b" * 24
THREAD = "t1"


def context(**changes: Any) -> UserExecutionContext:
    """A run of Ana's."""
    return run_context(**{"principal": ANA, "base_epoch": EPOCH, **changes})


def started() -> bytes:
    return Event(agent_started=AgentStarted(agent="researcher", attempt=1)).SerializeToString()


def thinking(text: str) -> bytes:
    return Event(agent_thinking=AgentThinking(text=text)).SerializeToString()


def delta(text: str, message: str = "m1") -> bytes:
    return Event(message_delta=MessageDelta(message=message, text=text)).SerializeToString()


def thinking_delta(text: str, message: str = "m1") -> bytes:
    return Event(thinking_delta=ThinkingDelta(message=message, text=text)).SerializeToString()


def completed() -> bytes:
    return Event(agent_completed=AgentCompleted(output_json='"done"')).SerializeToString()


def failed(reason: str = "AGENT_LOST") -> bytes:
    return Event(agent_failed=AgentFailed(reason=reason)).SerializeToString()


def cancelled() -> bytes:
    return Event(agent_cancelled=AgentCancelled(reason="USER")).SerializeToString()


def queued(position: int = 1) -> bytes:
    return Event(run_queued=RunQueued(position=position)).SerializeToString()


@dataclass
class Outcomes:
    """What a writer said, in order."""

    said: list[tuple[object, ...]] = field(default_factory=list)

    def opened(self, durable_run_seq: int) -> None:
        self.said.append(("opened", durable_run_seq))

    def acknowledged(self, durable_run_seq: int, ended: bool) -> None:
        self.said.append(("acknowledged", durable_run_seq, ended))

    def rejected(self, run_seq: int, reason: str, message: str) -> None:
        assert message
        self.said.append(("rejected", run_seq, reason))

    def refused(self, reason: str, message: str, retryable: bool) -> None:
        assert message
        self.said.append(("refused", reason, retryable))


def batch(
    first_seq: int,
    *texts: str,
    epoch: int = EPOCH,
    run: str = RUN,
    ends: bool = False,
    principal: Principal = ANA,
    thread: str = THREAD,
) -> LogBatch:
    """A batch of `agent_thinking`, one for each text; with `ends` the last is an ending."""
    events = [Event.FromString(thinking(text)) for text in texts]
    if ends:
        events[-1] = Event.FromString(completed())
    return LogBatch(
        tenant=principal.tenant,
        user=principal.user,
        thread=thread,
        run=run,
        attempt=1,
        first_run_seq=1,
        last_run_seq=len(texts),
        epoch=epoch,
        first_seq=first_seq,
        ends=ends,
        events=events,
    )


def stored(stream_seq: int, found: LogBatch, previous: int | None = None) -> Stored:
    return Stored(stream_seq, previous, found, found.ByteSize())
