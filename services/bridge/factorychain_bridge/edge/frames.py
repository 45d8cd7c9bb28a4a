"""What clients send in `factorychain.v1.json`: text into operations.

Invariant: whatever a client sends is an operation or a `BadFrame`, nothing else; and nothing is read
from a frame about who sends it. The forms of fields are checked here, their meaning by the engine,
which is the boundary for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import orjson
from google.protobuf.message import Message

from factorychain.engine.v1 import engine_pb2 as engine
from factorychain.errors import InvalidField
from factorychain_bridge.edge.fields import (
    Frame,
    dumped,
    integer,
    items,
    json_object,
    page_size,
    required,
    text,
    thread,
)

ID_MAX_CHARS = 128
_ON_BUSY = {
    "reject": engine.ON_BUSY_REJECT,
    "enqueue": engine.ON_BUSY_ENQUEUE,
    "interrupt": engine.ON_BUSY_INTERRUPT,
}


# --- operations ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Auth:
    """Says, or renews, who speaks."""

    id: str | None
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Start:
    """Starts a run and subscribes to its thread."""

    id: str
    request: engine.StartRunRequest


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Wants a thread's events after a position. `epoch` 0: not known."""

    id: str
    thread: str
    after: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Wants no more of a thread."""

    id: str
    thread: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the engine, answered by its response."""

    id: str
    method: str
    request: Message


@dataclass(frozen=True, slots=True)
class Respond:
    """Answers what an agent asks, and subscribes to the thread if another run goes on."""

    id: str
    request: engine.RespondToRunRequest


@dataclass(frozen=True, slots=True)
class Ping:
    """Is anybody there."""

    id: str


Operation = Start | Respond | Subscribe | Unsubscribe | Call


class BadFrame(Exception):
    """A frame that is no operation. `id` is None if it could not be read."""

    def __init__(self, id: str | None, error: InvalidField) -> None:
        super().__init__(error.message)
        self.id = id
        self.error = error


def parse(text: str | bytes) -> Auth | Ping | Operation:
    """The operation of a text frame.

    Raises:
        BadFrame: It is none.
    """
    frame = _object(text)
    id = _id(frame)
    try:
        return _operation(frame, id)
    except InvalidField as error:
        raise BadFrame(id, error) from error


def _object(text: str | bytes) -> Frame:
    try:
        found: object = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise BadFrame(None, InvalidField("frame", "must be JSON (RFC 8259) in UTF-8")) from None
    if not isinstance(found, dict):
        raise BadFrame(None, InvalidField("frame", "must be a JSON object"))
    return found


def _id(frame: Frame) -> str | None:
    id = frame.get("id")
    if id is None:
        return None
    if not isinstance(id, str) or len(id) > ID_MAX_CHARS:
        problem = f"must be a string of at most {ID_MAX_CHARS} characters"
        raise BadFrame(None, InvalidField("id", problem))
    return id


def _operation(frame: Frame, id: str | None) -> Auth | Ping | Operation:
    op = frame.get("op")
    if op == "auth":
        token = frame.get("token")
        # What is no token at all is a bad token: the socket closes as it does for any other.
        return Auth(id, token if isinstance(token, str) else "")
    parser = _PARSERS.get(op) if isinstance(op, str) else None
    if parser is None:
        raise InvalidField("op", f"must be one of auth, {', '.join(_PARSERS)}")
    if id is None:
        raise InvalidField("id", "is required: a string of your own, the reply carries it")
    return parser(frame, id)


# --- one op each -----------------------------------------------------------------------------


def _start(frame: Frame, id: str) -> Start:
    request = engine.StartRunRequest(
        agent=text(frame, "agent"),
        thread=thread(frame, optional=True),
        input_json=json_object(frame, "input", optional=False),
        request_id=text(frame, "request_id"),
        on_busy=_on_busy(frame),
        metadata_json=json_object(frame, "metadata"),
        replaces=text(frame, "replaces"),
    )
    for number, item in enumerate(items(frame, "context")):
        where = f"context[{number}]"
        if not isinstance(item, dict):
            raise InvalidField(where, "must be an object")
        request.context.add(
            description=text(item, "description", where), value=text(item, "value", where)
        )
    return Start(id, request)


def _subscribe(frame: Frame, id: str) -> Subscribe:
    return Subscribe(id, thread(frame), integer(frame, "after"), integer(frame, "epoch"))


def _unsubscribe(frame: Frame, id: str) -> Unsubscribe:
    return Unsubscribe(id, thread(frame))


def _ping(frame: Frame, id: str) -> Ping:  # noqa: ARG001 - one signature for all
    return Ping(id)


def _cancel(frame: Frame, id: str) -> Call:
    return Call(id, "CancelRun", engine.CancelRunRequest(run=required(frame, "run")))


def _respond(frame: Frame, id: str) -> Respond:
    request = engine.RespondToRunRequest(
        run=required(frame, "run"),
        request=required(frame, "request"),
        value_json=dumped("value", frame.get("value")),
    )
    return Respond(id, request)


def _agents(frame: Frame, id: str) -> Call:  # noqa: ARG001 - one signature for all
    return Call(id, "ListAgents", engine.ListAgentsRequest())


def _usage(frame: Frame, id: str) -> Call:  # noqa: ARG001 - one signature for all
    return Call(id, "GetUsage", engine.GetUsageRequest())


def _threads(frame: Frame, id: str) -> Call:
    request = engine.ListThreadsRequest(
        page_size=page_size(frame), page_token=text(frame, "page_token")
    )
    return Call(id, "ListThreads", request)


def _one_thread(frame: Frame, id: str) -> Call:
    request = engine.GetThreadRequest(
        thread=thread(frame), page_size=page_size(frame), page_token=text(frame, "page_token")
    )
    return Call(id, "GetThread", request)


def _thread_update(frame: Frame, id: str) -> Call:
    request = engine.UpdateThreadRequest(thread=thread(frame))
    if frame.get("title") is not None:
        request.title = text(frame, "title")
    if frame.get("metadata") is not None:
        request.metadata_json = json_object(frame, "metadata")
    return Call(id, "UpdateThread", request)


def _thread_delete(frame: Frame, id: str) -> Call:
    return Call(id, "DeleteThread", engine.DeleteThreadRequest(thread=thread(frame)))


def _feedback(frame: Frame, id: str) -> Call:
    score = frame.get("score", 0)
    if isinstance(score, bool) or not isinstance(score, int | float) or not -1 <= score <= 1:
        raise InvalidField("score", "must be a number from -1 to 1")
    request = engine.RecordFeedbackRequest(
        run=required(frame, "run"), score=score, comment=text(frame, "comment")
    )
    return Call(id, "RecordFeedback", request)


def _on_busy(frame: Frame) -> engine.OnBusy.ValueType:
    value = text(frame, "on_busy")
    if value and value not in _ON_BUSY:
        raise InvalidField("on_busy", f"must be one of {', '.join(_ON_BUSY)}")
    return _ON_BUSY.get(value, engine.ON_BUSY_UNSPECIFIED)


_PARSERS: Mapping[str, Callable[[Frame, str], Ping | Operation]] = {
    "start": _start,
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "cancel": _cancel,
    "respond": _respond,
    "agents": _agents,
    "threads": _threads,
    "thread": _one_thread,
    "thread_update": _thread_update,
    "thread_delete": _thread_delete,
    "feedback": _feedback,
    "usage": _usage,
    "ping": _ping,
}
