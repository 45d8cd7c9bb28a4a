"""One response of a model as it arrives: its text as a message, its reasoning beside it.

Invariant: a message has exactly the text that Pydantic AI takes for the response's text, so that an
output that is this text names the message.
"""

from __future__ import annotations

from pydantic_ai.messages import (
    FinalResultEvent,
    ModelResponseStreamEvent,
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

    def __init__(self, ctx: RunContext, run: ActiveRun, *, structured: bool = False) -> None:
        """`structured`: text may be the JSON of a structured output, which is not for reading."""
        self._ctx = ctx
        self._run = run
        self._structured = structured
        self._silent = False
        self._held: str | None = None
        """How a text begins of which it is not known yet what it is."""
        self._message: MessageStream | None = None
        self._thoughts: dict[int, ThinkingStream] = {}
        self._native: dict[str, OpenCall] = {}
        self.streaming = False
        """Whether it has begun, and has not ended."""

    @property
    def message(self) -> str:
        """Id of the message that its text is in; empty while there is none."""
        return self._message.id if self._message is not None else ""

    async def take(self, event: ModelResponseStreamEvent) -> None:
        """The next that is known of it.

        Whether a text is to be the output is said right after its first piece.
        """
        self.streaming = True
        held, self._held = self._held, None
        if isinstance(event, FinalResultEvent):
            self._silent = self._silent or (held is not None and event.tool_name is None)
        if held is not None:
            await self._write(held)
        if isinstance(event, PartStartEvent):
            await self._started(event)
        elif isinstance(event, PartDeltaEvent):
            await self._grew(event)
        elif isinstance(event, PartEndEvent):
            await self._ended(event)

    async def closed(self) -> None:
        """Nothing more comes: what the vendor called and told no result of is over."""
        self.streaming = False
        while self._native:
            await self._native.popitem()[1].end()

    async def _started(self, event: PartStartEvent) -> None:
        part = event.part
        if isinstance(part, TextPart) and self._structured:
            self._held, self._structured = part.content, False
        elif isinstance(part, TextPart):
            await self._write(part.content)
        elif isinstance(part, ThinkingPart):
            self._thoughts[event.index] = self._ctx.thinking()
            await self._thoughts[event.index].write(part.content)
        elif isinstance(part, NativeToolCallPart):
            self._message = None  # text before a vendor's own tool is no part of what comes after

    async def _grew(self, event: PartDeltaEvent) -> None:
        delta = event.delta
        if isinstance(delta, TextPartDelta):
            await self._write(delta.content_delta)
        elif isinstance(delta, ThinkingPartDelta) and event.index in self._thoughts:
            await self._thoughts[event.index].write(delta.content_delta or "")

    async def _ended(self, event: PartEndEvent) -> None:
        """A call of the vendor's own tools can be shown only now, with its arguments."""
        part = event.part
        if isinstance(part, NativeToolCallPart):
            shown = part.args if part.args is not None else {}
            call = await begin_call(self._run, part.tool_name, shown, part.tool_call_id)
            self._native[part.tool_call_id] = call
        elif isinstance(part, NativeToolReturnPart):
            answered = self._native.pop(part.tool_call_id, None)
            if answered is not None:
                await answered.end(part.content)

    async def _write(self, text: str) -> None:
        if self._silent or not text:
            return
        if self._message is None:
            self._message = self._ctx.message()
        await self._message.write(text)
