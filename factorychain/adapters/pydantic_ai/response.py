"""One response of a model as it arrives: its text as a message, its reasoning beside it.

Invariant: a message has exactly the text that Pydantic AI takes for the response's text, so that an
output that is this text names the message.
"""

from __future__ import annotations

from pydantic_ai.messages import (
    NativeToolCallPart,
    NativeToolReturnPart,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
)

from factorychain._instance.active import ActiveRun
from factorychain._instance.external_calls import begin_call
from factorychain._instance.open_call import OpenCall
from factorychain.context import RunContext
from factorychain.message import MessageStream, ThinkingStream


class ShownResponse:
    """What users see of a response while it is streamed."""

    def __init__(self, ctx: RunContext, run: ActiveRun, *, silent: bool = False) -> None:
        """`silent`: its text is the JSON of a structured output, which is not for reading."""
        self._ctx = ctx
        self._run = run
        self._silent = silent
        self._message: MessageStream | None = None
        self._thoughts: dict[int, ThinkingStream] = {}
        self._native: dict[str, OpenCall] = {}
        self.streaming = False
        """Whether it has begun, and has not ended."""

    @property
    def message(self) -> str:
        """Id of the message that its text is in; empty while there is none."""
        return self._message.id if self._message is not None else ""

    async def started(self, event: PartStartEvent) -> None:
        """A part begins, with what is there of it already."""
        self.streaming = True
        part = event.part
        if isinstance(part, TextPart):
            await self._write(part.content)
        elif isinstance(part, ThinkingPart):
            self._thoughts[event.index] = self._ctx.thinking()
            await self._thoughts[event.index].write(part.content)
        elif isinstance(part, NativeToolCallPart):
            self._message = None  # text before a vendor's own tool is no part of what comes after

    async def grew(self, event: PartDeltaEvent) -> None:
        """More of a part."""
        delta = event.delta
        if isinstance(delta, TextPartDelta):
            await self._write(delta.content_delta)
        elif isinstance(delta, ThinkingPartDelta) and event.index in self._thoughts:
            await self._thoughts[event.index].write(delta.content_delta or "")

    async def ended(self, event: PartEndEvent) -> None:
        """A part is whole; a call of the vendor's own tools can be shown only now, with its arguments."""
        part = event.part
        if isinstance(part, NativeToolCallPart):
            shown = part.args if part.args is not None else {}
            call = await begin_call(self._run, part.tool_name, shown, part.tool_call_id)
            self._native[part.tool_call_id] = call
        elif isinstance(part, NativeToolReturnPart):
            answered = self._native.pop(part.tool_call_id, None)
            if answered is not None:
                await answered.end(part.content)

    async def closed(self) -> None:
        """Nothing more comes: what the vendor called and told no result of is over."""
        self.streaming = False
        while self._native:
            await self._native.popitem()[1].end()

    async def _write(self, text: str) -> None:
        if self._silent or not text:
            return
        if self._message is None:
            self._message = self._ctx.message()
        await self._message.write(text)
