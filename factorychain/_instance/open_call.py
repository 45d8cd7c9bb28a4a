"""The pair of events around one call of a tool, its span, and what users hear of a failure.

Invariant: `tool_executing` that was sent is followed by one `tool_completed`, also when the call is
cancelled, once more while it says so, takes longer than it may, or the events in between were rejected.
"""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self

import orjson

from factorychain._core import genai
from factorychain._instance import events
from factorychain._instance.active import ActiveRun, child_trace
from factorychain._instance.spec import SpanRecord
from factorychain._instance.values import NotJson, cut_json, dumps, dumps_anything
from factorychain.errors import AgentError, RunEnded, ToolError
from factorychain.interrupt import Interrupt

_GENERIC = "The tool failed"


class OpenCall:
    """A call that users have seen begin. The first that is said of its end counts, the rest is ignored."""

    def __init__(self, run: ActiveRun, tool: str, call: str) -> None:
        """Use `begin`."""
        self.run = run
        self.tool = tool
        self.call = call
        """Its id, unique in the run."""
        self.trace, self._parent_id = child_trace(run.trace)
        self.path = run.path
        """Which part of the agent made it; its end is said there as well."""
        self.closed = False
        self._started_ns = time.time_ns()
        self._began = time.monotonic()

    @classmethod
    async def begin(
        cls,
        run: ActiveRun,
        tool: str,
        arguments: Mapping[str, object] | str,
        *,
        message: str = "",
        call: str = "",
    ) -> Self:
        """Say that it begins; what says so is followed by its end also if the caller is cancelled.

        Args:
            run: the run that it is in; its span is below where this is called.
            tool: the tool's name.
            arguments: as users see them; text that is no JSON object appears as it is.
            message: id of the message in which a model made the call.
            call: an id that is unique in the run; one of our own if empty.
        """
        begun = cls(run, tool, call or run.new_id("c"))
        shown = shown_arguments(arguments, run.text_limit_bytes)
        event = events.tool_executing(begun.trace, begun.call, tool, shown, message)
        try:
            await run.emit(events.TOOL_EXECUTING, event, begun.path)
        except asyncio.CancelledError as error:  # it is on its way, see `RunHost.emit`
            await begun.failed_by(error)
            raise
        return begun

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be in the call: what is said meanwhile belongs to it."""
        self.run.open_calls.add(self.call)
        try:
            with self.run.entered(self.trace, self.call, self.path):
                yield
        finally:
            self.run.open_calls.discard(self.call)

    async def progress(self, data: object) -> None:
        """How far it is (`tool_progress`); nothing happens once it has ended."""
        if self.closed:
            return
        event = events.tool_progress(self.trace, self.call, dumps_anything(data))
        await self.run.emit(events.TOOL_PROGRESS, event, self.path)

    async def end(self, result: object = None) -> None:
        """It went well."""
        if self._close():
            return
        try:
            text = dumps(result)
        except NotJson:
            text = dumps_anything(result)
        shown, truncated = cut_json(text, self.run.text_limit_bytes)
        event = events.tool_succeeded(
            self.trace, self.call, self.tool, shown, self._duration_ms, truncated=truncated
        )
        self._record("")
        await self.run.emit_closing(events.TOOL_COMPLETED, event, self.path)

    async def fail(self, reason: str, message: str) -> None:
        """It did not; users read the message."""
        if self._close():
            return
        event = events.tool_failed(
            self.trace, self.call, self.tool, reason, message, self._duration_ms
        )
        self._record(reason)
        try:
            await self.run.emit_closing(events.TOOL_COMPLETED, event, self.path)
        except RunEnded:
            # The run was closed under the agent; the host has said for every open call that it is over.
            return

    async def failed_by(self, error: BaseException) -> None:
        """It did not, by what its code raised: users read text that was written for them, no other."""
        if not self.closed:
            await self.fail(*_explained(self.run, error))

    @property
    def _duration_ms(self) -> int:
        return int((time.monotonic() - self._began) * 1000)

    def _close(self) -> bool:
        """Whether it was closed before."""
        before, self.closed = self.closed, True
        self.run.external_calls.pop(self.call, None)
        return before

    def _record(self, error: str) -> None:
        name, attributes = genai.execute_tool(self.tool, call=self.call, run=self.run.spec.run)
        plain = tuple((key, str(value)) for key, value in attributes.items())
        ended_ns = self._started_ns + int((time.monotonic() - self._began) * 1e9)
        self.run.host.span(
            SpanRecord(name, self.trace, self._parent_id, self._started_ns, ended_ns, plain, error)
        )


def print_failure(run: ActiveRun, error: BaseException) -> None:
    """The traceback for the log, once: a failed tool may be handled by the agent, or end the run."""
    if run.printed is not error:
        run.printed = error
        hint = run.hint(error)
        lines = [*traceback.format_exception(error), *([f"Hint: {hint}\n"] if hint else [])]
        # In one piece, so that lines of other runs do not come between.
        sys.stderr.write("".join(lines))


def _explained(run: ActiveRun, error: BaseException) -> tuple[str, str]:
    if isinstance(error, ToolError | AgentError):
        return error.reason, error.message
    if isinstance(error, asyncio.CancelledError):
        return "CANCELLED", "The call was cancelled"
    if isinstance(error, Interrupt):
        return "INTERRUPTED", "The run waits for its user"
    print_failure(run, error)
    return "TOOL_FAILED", _GENERIC


def shown_arguments(arguments: Mapping[str, object] | str, limit_bytes: int) -> str:
    """The arguments as a JSON object that fits an event; long values are cut one by one."""
    if isinstance(arguments, str):
        return shown_arguments({"arguments": arguments}, limit_bytes)
    text = dumps_anything(arguments)
    if len(text.encode()) <= limit_bytes:
        return text
    room = max(limit_bytes // (len(arguments) + 1) - 64, 16)
    cut = {
        str(key): orjson.Fragment(cut_json(dumps_anything(value), room)[0])
        for key, value in arguments.items()
    }
    return orjson.dumps(cut).decode()
