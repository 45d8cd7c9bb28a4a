"""What a start may ask for, checked before anything is read or stored.

Invariant: a `StartRequest` is within every bound, names its run and its thread, and carries a hash
of its whole body, so that everything behind this module may trust its form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Final

import orjson

from factorychain._core.ids import (
    Principal,
    new_request_id,
    parse_run_id,
    parse_thread_id,
    resumed_run_id,
    run_id_for,
    thread_id_for,
)
from factorychain.engine.v1 import engine_pb2
from factorychain.errors import InvalidField
from factorychain.types.v1.run_pb2 import ContextItem, Run

MAX_CONTEXT_ITEMS: Final = 64
MAX_CONTENT_PARTS: Final = 64
MAX_NAME_CHARS: Final = 128
MAX_TITLE_CHARS: Final = 80

_Json = Mapping[str, object]


class OnBusy(StrEnum):
    """What to do when the thread has an active run."""

    REJECT = "reject"
    ENQUEUE = "enqueue"
    INTERRUPT = "interrupt"


@dataclass(frozen=True, slots=True)
class InputLimits:
    """Bounds of what a start may carry."""

    input_max_bytes: int
    metadata_max_bytes: int
    answer_max_bytes: int = 61_440


@dataclass(frozen=True, slots=True)
class StartRequest:
    """A start, checked."""

    principal: Principal
    run: str
    thread: str
    agent: str
    """Empty: the default agent."""
    input_json: str
    metadata_json: str
    """Empty: none."""
    context: tuple[ContextItem, ...]
    replaces: str
    on_busy: OnBusy
    title: str
    """What a new thread is called: the first line of the input's text."""
    request_hash: str
    resumes: str = ""
    """The run that this one goes on for; empty: none."""
    resume_json: str = ""
    """What was answered to that one's requests."""
    plan: str = ""
    """The plan that the user's token names; empty: none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A user's answer, checked."""

    run: str
    request: str
    value_json: str


def parse_answer(request: engine_pb2.RespondToRunRequest, max_bytes: int) -> Answer:
    """Check the form of an answer.

    Raises:
        InvalidField: a field is malformed or over its bound.
        RunNotFound: no run has such an id.
    """
    run = parse_run_id(request.run)
    if not request.request:
        raise InvalidField("request", "is required, the id of a request")
    size_bytes = len(request.value_json.encode())
    if size_bytes > max_bytes:
        raise InvalidField("value", f"is {size_bytes} bytes, the limit is {max_bytes}")
    try:
        orjson.loads(request.value_json)
    except orjson.JSONDecodeError as error:
        raise InvalidField("value", f"must be JSON: {error.msg} at character {error.pos}") from None
    return Answer(run, _name("request", request.request), request.value_json)


def resuming_start(principal: Principal, ended: Run, plan: str) -> StartRequest:
    """The start of the run that goes on for one whose requests are all answered."""
    resume = resume_of(ended)
    return StartRequest(
        principal=principal,
        run=resumed_run_id(principal, ended.run),
        thread=ended.thread,
        agent=ended.agent,
        input_json=ended.input_json,
        metadata_json=ended.metadata_json,
        context=(),
        replaces="",
        on_busy=OnBusy.REJECT,
        title=title_of_input(ended.input_json),
        request_hash=blake2b(ended.run.encode() + resume, digest_size=16).hexdigest(),
        resumes=ended.run,
        resume_json=resume.decode(),
        plan=plan,
    )


def queued_start(principal: Principal, kept: Run, request_hash: str, plan: str) -> StartRequest:
    """The start of a run that had to wait, from what was kept of it."""
    return StartRequest(
        principal=principal,
        run=kept.run,
        thread=kept.thread,
        agent=kept.agent,
        input_json=kept.input_json,
        metadata_json=kept.metadata_json,
        context=tuple(kept.context),
        replaces=kept.replaces,
        on_busy=OnBusy.ENQUEUE,
        title=title_of_input(kept.input_json),
        request_hash=request_hash,
        plan=plan,
    )


def resume_of(ended: Run) -> bytes:
    """What was answered to the requests of a run: a JSON object of values by request."""
    answers = {each.request: orjson.loads(each.value_json) for each in ended.answers}
    return orjson.dumps(answers, option=orjson.OPT_SORT_KEYS)


def parse_start(
    principal: Principal,
    request: engine_pb2.StartRunRequest,
    limits: InputLimits,
    plan: str = "",
) -> StartRequest:
    """Check a start of this principal, whose token names `plan`.

    Raises:
        InvalidField: a field is malformed or over its bound.
    """
    on_busy = _on_busy(request.on_busy)
    run = run_id_for(principal, _name("request_id", request.request_id) or new_request_id())
    thread = parse_thread_id(request.thread) if request.thread else thread_id_for(run)
    given = _input(request.input_json, limits.input_max_bytes)
    metadata = _metadata(request.metadata_json, limits.metadata_max_bytes)
    _check_context(request.context, limits.input_max_bytes)
    replaces = parse_run_id(request.replaces, "replaces") if request.replaces else ""
    return StartRequest(
        principal=principal,
        run=run,
        thread=thread,
        agent=_name("agent", request.agent),
        input_json=request.input_json,
        metadata_json=request.metadata_json,
        context=tuple(request.context),
        replaces=replaces,
        on_busy=on_busy,
        title=title_of(given),
        request_hash=_hash(request, thread, on_busy, given, metadata),
        plan=plan,
    )


def title_of_input(input_json: str) -> str:
    """The title that an input gives its thread; empty for one that is not known."""
    return title_of(orjson.loads(input_json)) if input_json else ""


def title_of(given: _Json) -> str:
    """The first line of the input's first text, cut to 80 characters."""
    text = given.get("text")
    if not isinstance(text, str):
        content = given.get("content")
        parts = content if isinstance(content, list) else []
        text = next((part["text"] for part in parts if part.get("type") == "text"), "")
    lines = (" ".join(line.split()) for line in text.splitlines())
    first = next((line for line in lines if line), "")
    return first if len(first) <= MAX_TITLE_CHARS else first[: MAX_TITLE_CHARS - 1].rstrip() + "…"


def _on_busy(value: engine_pb2.OnBusy.ValueType) -> OnBusy:
    if value in (engine_pb2.ON_BUSY_UNSPECIFIED, engine_pb2.ON_BUSY_REJECT):
        return OnBusy.REJECT
    if value == engine_pb2.ON_BUSY_INTERRUPT:
        return OnBusy.INTERRUPT
    if value == engine_pb2.ON_BUSY_ENQUEUE:
        return OnBusy.ENQUEUE
    raise InvalidField("on_busy", "must be reject, enqueue or interrupt")


def _name(field: str, value: str) -> str:
    if len(value) > MAX_NAME_CHARS:
        raise InvalidField(field, f"must be at most {MAX_NAME_CHARS} characters")
    if not value.isprintable():
        raise InvalidField(field, "must not contain control characters")
    return value


def _input(input_json: str, max_bytes: int) -> _Json:
    given = _object("input", input_json, max_bytes)
    has_text, has_content = "text" in given, "content" in given
    if has_text == has_content:
        raise InvalidField("input", "must have either text or content")
    if has_text and not isinstance(given["text"], str):
        raise InvalidField("input.text", "must be a string")
    if has_content:
        _check_content(given["content"])
    return given


def _check_content(content: object) -> None:
    if not isinstance(content, list) or not content:
        raise InvalidField("input.content", "must be a list with at least one part")
    if len(content) > MAX_CONTENT_PARTS:
        raise InvalidField("input.content", f"must have at most {MAX_CONTENT_PARTS} parts")
    for index, part in enumerate(content):
        _check_part(f"input.content[{index}]", part)


def _check_part(field: str, part: object) -> None:
    if not isinstance(part, dict):
        raise InvalidField(field, "must be an object")
    for key, value in part.items():
        if key in ("text", "url", "data", "media_type") and not isinstance(value, str):
            raise InvalidField(f"{field}.{key}", "must be a string")
    kind = part.get("type")
    if kind == "text":
        if "text" not in part:
            raise InvalidField(f"{field}.text", "is required in a part of type text")
    elif kind in ("image", "file"):
        _check_source(field, part)
    else:
        raise InvalidField(f"{field}.type", "must be text, image or file")


def _check_source(field: str, part: _Json) -> None:
    if ("url" in part) == ("data" in part):
        raise InvalidField(field, "must have either url or data")
    if "data" in part and not part.get("media_type"):
        raise InvalidField(f"{field}.media_type", "is required with data")
    if "url" in part and not str(part["url"]).startswith(("https://", "http://")):
        raise InvalidField(f"{field}.url", "must begin with https:// or http://")


def _metadata(metadata_json: str, max_bytes: int) -> _Json | None:
    return _object("metadata", metadata_json, max_bytes) if metadata_json else None


def _check_context(items: Sequence[ContextItem], max_bytes: int) -> None:
    if len(items) > MAX_CONTEXT_ITEMS:
        raise InvalidField("context", f"must have at most {MAX_CONTEXT_ITEMS} items")
    size_bytes = sum(each.ByteSize() for each in items)
    if size_bytes > max_bytes:
        raise InvalidField("context", f"is {size_bytes} bytes, the limit is {max_bytes}")


def _object(field: str, text: str, max_bytes: int) -> _Json:
    raw = text.encode()
    if len(raw) > max_bytes:
        raise InvalidField(field, f"is {len(raw)} bytes, the limit is {max_bytes}")
    try:
        value: object = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidField(field, f"must be JSON: {error.msg} at character {error.pos}") from None
    if not isinstance(value, dict):
        raise InvalidField(field, "must be a JSON object")
    return value


def _hash(
    request: engine_pb2.StartRunRequest,
    thread: str,
    on_busy: OnBusy,
    given: _Json,
    metadata: _Json | None,
) -> str:
    """Of the body's meaning: another spelling of the same JSON is the same request."""
    body = [
        request.agent,
        thread,
        on_busy.value,
        given,
        metadata,
        [[each.description, each.value] for each in request.context],
        request.replaces,
    ]
    return blake2b(orjson.dumps(body, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()
