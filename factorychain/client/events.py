"""What a client receives: events, the marks between them, and typed errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from factorychain._core.event_kinds import ENDINGS
from factorychain.errors import ErrorCode, FactoryChainError, FieldViolation, error_class

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
JsonObject: TypeAlias = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a thread, as the protocol document describes it."""

    thread: str
    epoch: int
    """When the thread's numbering started, Unix milliseconds."""
    seq: int
    """Dense number in the thread: 1, 2, 3…"""
    run: str
    type: str
    """`agent_started`, `agent_thinking`, …; ignore types that you do not know."""
    at: str
    """RFC 3339, UTC."""
    data: JsonObject
    trace: str = ""
    """W3C `traceparent` of the span in which it was made."""
    path: tuple[str, ...] = ()
    """Names of the sub-agents between the run's agent and the one that speaks."""

    @property
    def is_ending(self) -> bool:
        """Whether the run has nothing after this."""
        return self.type in ENDINGS

    @property
    def text(self) -> str:
        """The text of a thought or a delta; empty for others."""
        found = self.data.get("text")
        return found if isinstance(found, str) else ""

    @property
    def questions(self) -> list[JsonObject]:
        """What the user is asked: by `input_requested`, or by an ending that waits for answers."""
        if self.type == "input_requested":
            return [self.data]
        found = self.data.get("pending") if self.is_ending else None
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    def json(self) -> JsonObject:
        """The event as the protocol has it."""
        found: JsonObject = {
            "seq": self.seq,
            "run": self.run,
            "type": self.type,
            "at": self.at,
            "data": self.data,
            "trace": self.trace,
        }
        return found | {"path": list(self.path)} if self.path else found


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Everything that there was at the time of subscribing has been delivered."""

    thread: str
    seq: int


@dataclass(frozen=True, slots=True)
class Reset:
    """The position did not hold: forget what you have of the thread, everything there is follows."""

    thread: str
    epoch: int
    reason: str


Item = Event | CaughtUp | Reset


@dataclass(frozen=True, slots=True)
class Ready:
    """What the server said when it accepted the token."""

    tenant: str
    user: str
    expires_at: str
    heartbeat_s: float
    limits: JsonObject = field(default_factory=dict)


def events_of(frame: Mapping[str, Json]) -> list[Event]:
    """The events of an `events` frame."""
    thread, epoch = str(frame["thread"]), integer(frame, "epoch")
    return [
        _event(thread, epoch, each)
        for each in cast("list[Json]", frame["events"])
        if isinstance(each, dict)
    ]


def _event(thread: str, epoch: int, found: JsonObject) -> Event:
    data, path = found.get("data"), found.get("path")
    return Event(
        thread,
        epoch,
        integer(found, "seq"),
        str(found.get("run", "")),
        str(found.get("type", "")),
        str(found.get("at", "")),
        data if isinstance(data, dict) else {},
        str(found.get("trace", "")),
        tuple(str(each) for each in path) if isinstance(path, list) else (),
    )


def integer(frame: Mapping[str, Json], key: str) -> int:
    """An integer field; 0 where there is none."""
    value = frame.get(key)
    return value if isinstance(value, int) else 0


def error_from_json(found: Mapping[str, Json]) -> FactoryChainError:
    """The typed error of an `error` object."""
    reason = str(found.get("reason", "UNKNOWN"))
    retry_after_s = found.get("retry_after_s")
    fields, names = found.get("fields"), found.get("names")
    known = {"code", "reason", "message", "retry_after_s", "fields", "names"}
    violations = fields.items() if isinstance(fields, dict) else ()
    return error_class(reason).restored(
        str(found.get("message", "")),
        reason=reason,
        code=_code(found.get("code")),
        retry_after_s=retry_after_s if isinstance(retry_after_s, int | float) else None,
        field_violations=[FieldViolation(name, str(problem)) for name, problem in violations],
        names=[str(name) for name in names] if isinstance(names, list) else (),
        metadata={key: str(value) for key, value in found.items() if key not in known},
    )


def _code(value: Json) -> ErrorCode:
    try:
        return ErrorCode(str(value))
    except ValueError:
        return ErrorCode.UNKNOWN
