"""One emitter between an agents side and a bridge side that are plain lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from factorychain._core.execution_context import Scope, UserExecutionContext
from factorychain._core.link import Refusal
from factorychain.types.v1.event_pb2 import (
    AgentCompleted,
    AgentStarted,
    AgentThinking,
    Event,
    MessageDelta,
    ThinkingDelta,
    ToolCompleted,
    ToolExecuting,
)
from factorychain.types.v1.link_pb2 import RunOpen
from factorychain_emitter.user_emitter import UserWebSocketEmitter
from factorychain_emitter.validation import Limits
from tests.token_samples import run_context

TOKEN = "token-of-this-very-run-" + "abcdefgh0123456789" * 3
EVENT_MAX = 2_000
OUTPUT_MAX = 8_000


def context(scope: Scope = Scope.RUN) -> UserExecutionContext:
    return run_context(attempt=2, scope=scope, token=TOKEN)


@dataclass
class Near:
    """`Receipts`: what the agents side is told."""

    acknowledgements: list[int] = field(default_factory=list)
    rejections: list[tuple[int, str]] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    ended: bool = False

    def acknowledged(self, durable_run_seq: int, ended: bool = False) -> None:
        self.acknowledgements.append(durable_run_seq)
        self.ended = self.ended or ended

    def rejected(self, run_seq: int, reason: str, message: str) -> None:
        self.rejections.append((run_seq, reason))

    def refused(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)


@dataclass
class Far:
    """`Upstream`: what the bridge side gets."""

    pieces: list[tuple[int, list[Event]]] = field(default_factory=list)
    all_durable: bool = True
    discarded: bool = False
    tokens: list[str] = field(default_factory=list)

    def offer(self, run_seq: int, events: Sequence[bytes]) -> None:
        self.all_durable = False
        self.pieces.append((run_seq, [Event.FromString(each) for each in events]))

    def renew(self, token: str) -> None:
        self.tokens.append(token)

    def discard(self) -> None:
        self.discarded = True

    @property
    def events(self) -> list[Event]:
        return [event for _, piece in self.pieces for event in piece]

    @property
    def kinds(self) -> list[str]:
        return [event.WhichOneof("event") or "" for event in self.events]


class Harness:
    """To be made inside a running loop."""

    def __init__(
        self, opening: RunOpen | None = None, scope: Scope = Scope.RUN, limits: Limits | None = None
    ) -> None:
        self.near = Near()
        self.far = Far()
        self.emitter = UserWebSocketEmitter(
            context(scope),
            opening or RunOpen(),
            self.near,
            limits or Limits(EVENT_MAX, OUTPUT_MAX),
        )
        self.emitter.connect(self.far)
        self.run_seq = opening.durable_run_seq if opening else 0

    def say(self, *events: Event | bytes) -> None:
        """Hands over events, numbered."""
        numbered = []
        for event in events:
            self.run_seq += 1
            raw = event if isinstance(event, bytes) else event.SerializeToString()
            numbered.append((self.run_seq, raw))
        self.emitter.events(numbered)

    def settle(self, event: Event, run_seq: int = 0) -> None:
        """Hands over an event of the engine."""
        self.emitter.events([(run_seq, event.SerializeToString())])

    def durable(self, run_seq: int, ended: bool = False) -> None:
        self.far.all_durable = True
        self.emitter.acknowledged(run_seq, ended)

    @property
    def reasons(self) -> list[str]:
        return [reason for _, reason in self.near.rejections]


def started_run(limits: Limits | None = None) -> Harness:
    harness = Harness(limits=limits)
    harness.say(STARTED)
    return harness


STARTED = Event(
    agent_started=AgentStarted(agent="x", input_json='{"text":"hi"}', metadata_json="{}")
)
COMPLETED = Event(agent_completed=AgentCompleted(output_json='"done"'))


def thinking(text: str) -> Event:
    return Event(agent_thinking=AgentThinking(text=text))


def delta(text: str, message: str = "m1") -> Event:
    return Event(message_delta=MessageDelta(message=message, text=text))


def thought(text: str, message: str = "m1") -> Event:
    return Event(thinking_delta=ThinkingDelta(message=message, text=text))


def executing(call: str, tool: str = "search", arguments: str = "{}") -> Event:
    return Event(tool_executing=ToolExecuting(call=call, tool=tool, arguments_json=arguments))


def completed(call: str, tool: str = "search", result: str = "null") -> Event:
    return Event(tool_completed=ToolCompleted(call=call, tool=tool, ok=True, result_json=result))
