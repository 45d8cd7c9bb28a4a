"""The data that crosses the border between an agent instance and whoever hosts it.

Invariant: only plain values (text, numbers, bytes, tuples of them), so that each of these can be sent
to another process. No credential is among them but the run's key to the model gateway, which means
nothing elsewhere and ends with the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from factorychain.usage import Usage

AttributeValue: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What an instance knows of its run."""

    tenant: str
    user: str
    thread: str
    run: str
    agent: str
    attempt: int
    """1 for the first."""
    input_json: str
    metadata_json: str = "{}"
    context: tuple[tuple[str, str], ...] = ()
    """What the client passed along: (description, value)."""
    replaces: str = ""
    deadline_s: float = 0.0
    """Unix seconds by which the run must have ended; 0: none."""
    trace: str = ""
    """W3C `traceparent` of the span that the agent runs in."""
    event_max_bytes: int = 65_536
    output_max_bytes: int = 262_144
    beat_every_s: float = 5.0
    """How often the instance gives a sign of life."""
    gateway_url: str = ""
    """Where the run reaches models and services; empty: there is no gateway."""
    gateway_key: str = field(default="", repr=False)
    """The run's own there."""
    credentials: tuple[tuple[str, str], ...] = ()
    """What `ctx.credential` knows: names, and paths behind `gateway_url`."""
    ask_max_s: float = 3600.0
    """How long it may wait for its user's answers, beside its lifetime."""
    resumes: str = ""
    """The run that this one goes on for; empty if none."""
    resume_json: str = ""
    """What was answered to that one's requests: values by request; empty if it goes on for none."""


@dataclass(frozen=True, slots=True)
class InputRequest:
    """Something that the user is asked."""

    request: str
    """Its id, unique in the run."""
    kind: str
    """question, approval or tool."""
    prompt: str
    schema_json: str = ""
    """JSON Schema of the answer; empty: it may be anything."""
    tool: str = ""
    """What is to be approved, or what the client executes; empty for a question."""
    arguments_json: str = ""
    """The arguments of that call, a JSON object."""
    call: str = ""
    """Id of the call that is to be approved; empty if it has none."""


class OutcomeKind(StrEnum):
    """How the agent's code came to its end."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the agent's code came to. The ending that users see is made of it by the host."""

    kind: OutcomeKind
    output_json: str = ""
    message: str = ""
    """The streamed message whose text the output equals; empty if there is none."""
    reason: str = ""
    """Upper snake case; of a failure."""
    text: str = ""
    """Of a failure, for the user; empty if only the log may have it."""
    retryable: bool = False
    retry_after_s: float | None = None
    usage: Usage = field(default_factory=Usage)
    pending: tuple[InputRequest, ...] = ()
    """What has to be answered before the thread goes on; only of what is completed."""


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """A finished span, to be exported by the host: an instance has no exporter."""

    name: str
    trace: str
    """Its own W3C `traceparent`."""
    parent_id: str
    """16 hex characters."""
    start_ns: int
    """Unix nanoseconds."""
    end_ns: int
    attributes: tuple[tuple[str, AttributeValue], ...] = ()
    error: str = ""
    """What went wrong, as a short type (`error.type`); empty if nothing did."""
