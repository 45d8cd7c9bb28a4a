"""Calls of a graph's tools as pairs of events.

Invariant: a call is shown once, whether the graph reports it as it happens, or only its answer stands in
the conversation: a model's call of a tool that is not there, or a node that calls functions itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, cast

import orjson
from langchain_core.messages import ToolMessage
from langchain_core.tools import ToolException
from langgraph.types import Command
from pydantic import ValidationError

from factorychain._instance.active import ActiveRun
from factorychain._instance.external_calls import begin_call
from factorychain._instance.open_call import OpenCall
from factorychain._instance.signature import problems_of
from factorychain.adapters.langgraph.messages import AskedCall, Key, Messages
from factorychain.adapters.langgraph.observing import Observer

_FAILED: Final = "TOOL_ERROR"
_UNKNOWN: Final = "The tool failed"


class ToolCalls:
    """The calls of one run's graph."""

    def __init__(self, run: ActiveRun, messages: Messages, observer: Observer) -> None:
        self._run = run
        self._messages = messages
        self._observer = observer
        self._open: dict[Key, OpenCall] = {}
        self._shown: set[Key] = set()
        self._nameless: Counter[tuple[tuple[str, ...], str]] = Counter()
        """Calls without a model's id, by tool: their answers come with one."""

    async def take(self, ns: tuple[str, ...], told: Mapping[str, object]) -> None:
        """A part of the graph's stream of tools."""
        key = (ns, str(told["tool_call_id"]))
        kind = told["event"]
        if kind == "tool-started":
            await self._started(key, str(told["tool_name"]), told.get("input"))
            return
        call = self._open.get(key)
        if kind == "tool-output-delta":
            if call is not None:
                await call.progress(told.get("delta"))
            return
        error = self._observer.error_of(key[1]) if kind == "tool-error" else None
        if call is None:
            return
        del self._open[key]
        if kind == "tool-finished":
            await _end(call, told.get("output"), key[1])
        else:
            await _fail(call, error)

    async def answer(self, ns: tuple[str, ...], message: ToolMessage) -> None:
        """An answer in the conversation. That of a call that was shown says nothing new."""
        key = (ns, message.tool_call_id)
        asked = self._messages.asked(*key)
        tool = message.name or (asked.name if asked else "")
        if key in self._shown:
            return
        self._shown.add(key)
        if self._nameless[ns, tool]:
            self._nameless[ns, tool] -= 1
            return
        call = await self._begin(key, tool, _arguments(asked), asked)
        await _end(call, message, message.tool_call_id)

    async def pause(self) -> None:
        """The graph waits for an answer: its open calls run again when that is there."""
        for call in self._open.values():
            await call.fail("INTERRUPTED", "The call waits for an answer")
        self._open.clear()

    async def _started(self, key: Key, tool: str, given: object) -> None:
        asked = self._messages.asked(*key)
        if asked is None:
            self._nameless[key[0], tool] += 1
        arguments = given if isinstance(given, Mapping) else {}
        self._shown.add(key)
        self._open[key] = await self._begin(key, tool, arguments, asked)

    async def _begin(
        self,
        key: Key,
        tool: str,
        arguments: Mapping[str, object] | str,
        asked: AskedCall | None,
    ) -> OpenCall:
        message = asked.message if asked else ""
        return await begin_call(self._run, tool, arguments, key[1], message=message)


async def _end(call: OpenCall, output: object, call_id: str) -> None:
    """The call is over, with what the tool gave back; a tool may say there that it failed."""
    message = _message_in(output, call_id)
    if message is None:
        await call.end(None if isinstance(output, Command) else output)
    elif message.status == "error":
        await call.fail(_FAILED, message.text or _UNKNOWN)
    else:
        await call.end(message.content)


async def _fail(call: OpenCall, error: BaseException | None) -> None:
    """Users read what was written for them, or for the model; nothing of other errors."""
    cause = getattr(error, "source", error)
    if isinstance(cause, ValidationError):
        await call.fail("INVALID_ARGUMENTS", f"{call.tool}: {problems_of(cause)}")
    elif isinstance(error, ToolException):
        await call.fail(_FAILED, str(error))
    elif error is None:
        await call.fail("TOOL_FAILED", _UNKNOWN)
    else:
        await call.failed_by(error)


def _message_in(output: object, call_id: str) -> ToolMessage | None:
    if isinstance(output, ToolMessage):
        return output
    update = output.update if isinstance(output, Command) else None
    messages = update.get("messages") if isinstance(update, Mapping) else None
    found = [each for each in messages or () if isinstance(each, ToolMessage)]
    return next((each for each in found if each.tool_call_id == call_id), None)


def _arguments(asked: AskedCall | None) -> Mapping[str, object] | str:
    text = asked.arguments if asked is not None else ""
    try:
        found = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return text
    return cast("dict[str, object]", found) if isinstance(found, dict) else text
