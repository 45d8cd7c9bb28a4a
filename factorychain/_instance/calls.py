"""One call of a tool: the pair of events around it, its span and what users hear of a failure.

Invariant: `tool_executing` that was sent is followed by `tool_completed`, also when the call is
cancelled, once more while it says so, takes longer than it may, or the events in between were rejected.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import time
import traceback
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, cast

import orjson

from factorychain._core import genai
from factorychain._instance import events
from factorychain._instance.active import ActiveRun, child_trace
from factorychain._instance.signature import BadArguments, ToolSignature
from factorychain._instance.spec import SpanRecord
from factorychain._instance.threads import in_thread
from factorychain._instance.values import NotJson, cut_json, dumps, dumps_anything
from factorychain.errors import AgentError, RunEnded, ToolError

_GENERIC = "The tool failed"


class Callee(Protocol):
    """What is called: a tool of one agent instance."""

    @property
    def name(self) -> str: ...

    @property
    def signature(self) -> ToolSignature: ...

    @property
    def is_async(self) -> bool: ...

    @property
    def timeout_s(self) -> float | None:
        """How long a call may take; None: as long as its run."""

    def plain(self, *args: object, **kwargs: object) -> object:
        """Call the function itself."""


@dataclass(slots=True)
class _Call:
    run: ActiveRun
    tool: str
    call: str
    trace: str
    parent_id: str
    """The span that it is in."""
    started_ns: int = field(default_factory=time.time_ns)
    began: float = field(default_factory=time.monotonic)

    @property
    def duration_ms(self) -> int:
        return int((time.monotonic() - self.began) * 1000)


async def execute(
    run: ActiveRun,
    callee: Callee,
    args: tuple[object, ...],
    arguments: Mapping[str, object] | str,
    *,
    message: str = "",
) -> object:
    """Call a tool inside a run; what it raises is raised.

    Raises:
        ToolError: also INVALID_ARGUMENTS, when the arguments do not fit, and TOOL_TIMEOUT, when the
            call took longer than the tool may.
    """
    ready: dict[str, object] | BadArguments
    try:
        ready = _ready(callee, args, arguments)
    except BadArguments as error:
        ready = error
    call = _begin(run, callee.name)
    shown = arguments if isinstance(ready, BadArguments) else ready
    sent = events.tool_executing(
        call.trace, call.call, call.tool, _shown(shown, run.text_limit_bytes), message
    )
    try:
        await run.emit(events.TOOL_EXECUTING, sent)
    except asyncio.CancelledError as error:  # it is on its way, see `RunHost.emit`
        await _failed(call, error)
        raise
    try:
        if isinstance(ready, BadArguments):
            raise ToolError(f"{callee.name}: {ready}", "INVALID_ARGUMENTS") from ready
        with _open(call):
            result = await _within_time(run, callee, ready)
    except (
        GeneratorExit
    ):  # nobody drives it any more: it can await nothing, the host closes the pair
        raise
    except BaseException as error:
        await _failed(call, error)
        raise
    await _succeeded(call, result)
    return result


def _ready(
    callee: Callee, args: tuple[object, ...], arguments: Mapping[str, object] | str
) -> dict[str, object]:
    signature = callee.signature
    if isinstance(arguments, str):
        return signature.validated_json(arguments)
    return signature.validated(signature.named(args, arguments))


async def _within_time(run: ActiveRun, callee: Callee, arguments: dict[str, object]) -> object:
    try:
        async with asyncio.timeout(callee.timeout_s) as limit:
            return await _invoke(run, callee, arguments)
    except TimeoutError as error:
        if not limit.expired():  # the tool's own
            raise
        raise ToolError(
            f"{callee.name} did not finish within {callee.timeout_s:g} s", "TOOL_TIMEOUT"
        ) from error
    except (SystemExit, KeyboardInterrupt) as error:
        # In a task of its own (parallel calls) asyncio would let it end the whole process.
        raise RuntimeError(f"tool {callee.name} raised {type(error).__name__}") from error


async def _invoke(run: ActiveRun, callee: Callee, arguments: dict[str, object]) -> object:
    name = callee.signature.context_name
    if name:
        arguments = {**arguments, name: run.context}
    if callee.is_async:
        return await cast("Awaitable[object]", callee.plain(**arguments))
    result = await in_thread(callee.plain, **arguments)
    # A plain function may hand back the coroutine of another one.
    return await result if inspect.isawaitable(result) else result


@contextmanager
def _open(call: _Call) -> Iterator[None]:
    """Be in the call: what is said meanwhile belongs to it."""
    call.run.open_calls.add(call.call)
    try:
        with call.run.entered(call.trace, call.call):
            yield
    finally:
        call.run.open_calls.discard(call.call)


def _begin(run: ActiveRun, tool: str) -> _Call:
    trace, parent_id = child_trace(run.trace)
    return _Call(run, tool, run.new_id("c"), trace, parent_id)


async def _succeeded(call: _Call, result: object) -> None:
    try:
        text = dumps(result)
    except NotJson:
        text = dumps_anything(result)
    shown, truncated = cut_json(text, call.run.text_limit_bytes)
    event = events.tool_succeeded(
        call.trace, call.call, call.tool, shown, call.duration_ms, truncated=truncated
    )
    _record(call, "")
    await call.run.emit_closing(events.TOOL_COMPLETED, event)


async def _failed(call: _Call, error: BaseException) -> None:
    reason, text = _explained(call.run, error)
    event = events.tool_failed(call.trace, call.call, call.tool, reason, text, call.duration_ms)
    _record(call, reason)
    try:
        await call.run.emit_closing(events.TOOL_COMPLETED, event)
    except RunEnded:
        # The run was closed under the agent; the host has said for every open call that it is over.
        return


def _explained(run: ActiveRun, error: BaseException) -> tuple[str, str]:
    """What users hear: text that was written for them, else nothing of the failure."""
    if isinstance(error, ToolError | AgentError):
        return error.reason, error.message
    if isinstance(error, asyncio.CancelledError):
        return "CANCELLED", "The call was cancelled"
    print_failure(run, error)
    return "TOOL_FAILED", _GENERIC


def print_failure(run: ActiveRun, error: BaseException) -> None:
    """The traceback for the log, once: a failed tool may be handled by the agent, or end the run."""
    if run.printed is not error:
        run.printed = error
        hint = run.hint(error)
        lines = [*traceback.format_exception(error), *([f"Hint: {hint}\n"] if hint else [])]
        # In one piece, so that lines of other runs do not come between.
        sys.stderr.write("".join(lines))


def _record(call: _Call, error: str) -> None:
    name, attributes = genai.execute_tool(call.tool, call=call.call, run=call.run.spec.run)
    plain = tuple((key, str(value)) for key, value in attributes.items())
    ended_ns = call.started_ns + int((time.monotonic() - call.began) * 1e9)
    call.run.host.span(
        SpanRecord(name, call.trace, call.parent_id, call.started_ns, ended_ns, plain, error)
    )


def _shown(arguments: Mapping[str, object] | str, limit_bytes: int) -> str:
    """The arguments as a JSON object that fits an event; long values are cut one by one."""
    if isinstance(arguments, str):
        return _shown({"arguments": arguments}, limit_bytes)
    text = dumps_anything(arguments)
    if len(text.encode()) <= limit_bytes:
        return text
    room = max(limit_bytes // (len(arguments) + 1) - 64, 16)
    cut = {
        str(key): orjson.Fragment(cut_json(dumps_anything(value), room)[0])
        for key, value in arguments.items()
    }
    return orjson.dumps(cut).decode()
