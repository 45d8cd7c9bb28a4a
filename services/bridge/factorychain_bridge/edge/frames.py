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

from factorychain._core.ids import parse_thread_id
from factorychain.engine.v1 import engine_pb2 as engine
from factorychain.errors import InvalidField

ID_MAX_CHARS = 128
_INT_MAX = 2**63 - 1
_ON_BUSY = {
    "reject": engine.ON_BUSY_REJECT,
    "enqueue": engine.ON_BUSY_ENQUEUE,
    "interrupt": engine.ON_BUSY_INTERRUPT,
}

Frame = Mapping[str, object]


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
class Ping:
    """Is anybody there."""

    id: str


Operation = Start | Subscribe | Unsubscribe | Call


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
        return Auth(id, _required(frame, "token"))
    parser = _PARSERS.get(op) if isinstance(op, str) else None
    if parser is None:
        raise InvalidField("op", f"must be one of auth, {', '.join(_PARSERS)}")
    if id is None:
        raise InvalidField("id", "is required: a string of your own, the reply carries it")
    return parser(frame, id)


# --- one op each -----------------------------------------------------------------------------


def _start(frame: Frame, id: str) -> Start:
    request = engine.StartRunRequest(
        agent=_text(frame, "agent"),
        thread=_thread(frame, required=False),
        input_json=_json_object(frame, "input", required=True),
        request_id=_text(frame, "request_id"),
        on_busy=_on_busy(frame),
        metadata_json=_json_object(frame, "metadata"),
        replaces=_text(frame, "replaces"),
    )
    for number, item in enumerate(_list(frame, "context")):
        where = f"context[{number}]"
        if not isinstance(item, dict):
            raise InvalidField(where, "must be an object")
        request.context.add(
            description=_text(item, "description", where), value=_text(item, "value", where)
        )
    return Start(id, request)


def _subscribe(frame: Frame, id: str) -> Subscribe:
    return Subscribe(id, _thread(frame), _integer(frame, "after"), _integer(frame, "epoch"))


def _unsubscribe(frame: Frame, id: str) -> Unsubscribe:
    return Unsubscribe(id, _thread(frame))


def _ping(frame: Frame, id: str) -> Ping:  # noqa: ARG001 - one signature for all
    return Ping(id)


def _cancel(frame: Frame, id: str) -> Call:
    return Call(id, "CancelRun", engine.CancelRunRequest(run=_required(frame, "run")))


def _respond(frame: Frame, id: str) -> Call:
    request = engine.RespondToRunRequest(
        run=_required(frame, "run"),
        request=_required(frame, "request"),
        value_json=_dumped("value", frame.get("value")),
    )
    return Call(id, "RespondToRun", request)


def _agents(frame: Frame, id: str) -> Call:  # noqa: ARG001 - one signature for all
    return Call(id, "ListAgents", engine.ListAgentsRequest())


def _usage(frame: Frame, id: str) -> Call:  # noqa: ARG001 - one signature for all
    return Call(id, "GetUsage", engine.GetUsageRequest())


def _threads(frame: Frame, id: str) -> Call:
    request = engine.ListThreadsRequest(
        page_size=_page_size(frame), page_token=_text(frame, "page_token")
    )
    return Call(id, "ListThreads", request)


def _one_thread(frame: Frame, id: str) -> Call:
    request = engine.GetThreadRequest(
        thread=_thread(frame), page_size=_page_size(frame), page_token=_text(frame, "page_token")
    )
    return Call(id, "GetThread", request)


def _thread_update(frame: Frame, id: str) -> Call:
    request = engine.UpdateThreadRequest(thread=_thread(frame))
    if frame.get("title") is not None:
        request.title = _text(frame, "title")
    if frame.get("metadata") is not None:
        request.metadata_json = _json_object(frame, "metadata")
    return Call(id, "UpdateThread", request)


def _thread_delete(frame: Frame, id: str) -> Call:
    return Call(id, "DeleteThread", engine.DeleteThreadRequest(thread=_thread(frame)))


def _feedback(frame: Frame, id: str) -> Call:
    score = frame.get("score", 0)
    if isinstance(score, bool) or not isinstance(score, int | float) or not -1 <= score <= 1:
        raise InvalidField("score", "must be a number from -1 to 1")
    request = engine.RecordFeedbackRequest(
        run=_required(frame, "run"), score=score, comment=_text(frame, "comment")
    )
    return Call(id, "RecordFeedback", request)


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


# --- fields ----------------------------------------------------------------------------------


def _text(frame: Frame, key: str, inside: str = "") -> str:
    value = frame.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidField(f"{inside}.{key}" if inside else key, "must be a string")
    return value


def _required(frame: Frame, key: str) -> str:
    value = _text(frame, key)
    if not value:
        raise InvalidField(key, "is required, a string")
    return value


def _thread(frame: Frame, *, required: bool = True) -> str:
    value = _required(frame, "thread") if required else _text(frame, "thread")
    return parse_thread_id(value) if value else ""


def _integer(frame: Frame, key: str, most: int = _INT_MAX) -> int:
    value = frame.get(key)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise InvalidField(key, f"must be an integer from 0 to {most}")
    return value


def _page_size(frame: Frame) -> int:
    return _integer(frame, "page_size", 1000)


def _list(frame: Frame, key: str) -> list[object]:
    value = frame.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidField(key, "must be a list")
    return value


def _json_object(frame: Frame, key: str, *, required: bool = False) -> str:
    value = frame.get(key)
    if value is None and not required:
        return ""
    if not isinstance(value, dict):
        raise InvalidField(key, "is required, an object" if value is None else "must be an object")
    return _dumped(key, value)


def _dumped(key: str, value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        # It reads deeper nesting than it writes.
        raise InvalidField(key, "is nested too deeply, at most 254 levels") from None


def _on_busy(frame: Frame) -> engine.OnBusy.ValueType:
    value = _text(frame, "on_busy")
    if value and value not in _ON_BUSY:
        raise InvalidField("on_busy", f"must be one of {', '.join(_ON_BUSY)}")
    return _ON_BUSY.get(value, engine.ON_BUSY_UNSPECIFIED)
