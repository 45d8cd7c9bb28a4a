"""Messages of models as streams of the run.

Invariant: one message of a model is one message of the run, in the pieces in which the model said it, and
what was said piece by piece is not said again as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage

from factorychain._instance.values import dumps_anything
from factorychain.context import RunContext
from factorychain.message import MessageStream

Key: TypeAlias = tuple[tuple[str, ...], str]
"""The graph's namespace and an id of the framework's in it."""
Piece: TypeAlias = tuple[Literal["text", "reasoning"], str]


@dataclass(slots=True)
class AskedCall:
    """A call that a model asked for, as far as it has been streamed."""

    name: str
    message: str
    """Of the run; empty if the model said nothing beside it."""
    pieces: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)


class Messages:
    """The messages of one run's graph."""

    def __init__(self, ctx: RunContext) -> None:
        self._ctx = ctx
        self._streams: dict[Key, MessageStream] = {}
        self._whole: set[Key] = set()
        self._asked: dict[Key, AskedCall] = {}
        self._places: dict[tuple[Key, int | None], AskedCall] = {}

    def asked(self, ns: tuple[str, ...], call_id: str) -> AskedCall | None:
        """What a model asked for under this id."""
        return self._asked.get((ns, call_id))

    async def take(self, ns: tuple[str, ...], message: BaseMessage) -> None:
        """A message of the graph, or a piece of one; only a model's are the run's."""
        if not isinstance(message, AIMessage):
            return
        key = (ns, message.id or "")
        in_pieces = isinstance(message, AIMessageChunk)
        if not in_pieces and (key in self._whole or key in self._streams):
            return
        if not in_pieces:
            self._whole.add(key)
        for kind, text in pieces(message):
            stream = self._stream(key)
            await (stream.write(text) if kind == "text" else stream.think(text))
        self._note_calls(key, message)

    def _stream(self, key: Key) -> MessageStream:
        found = self._streams.get(key)
        if found is None:
            found = self._streams[key] = self._ctx.message()
        return found

    def _note_calls(self, key: Key, message: AIMessage) -> None:
        stream = self._streams.get(key)
        said = stream.id if stream is not None else ""
        if not isinstance(message, AIMessageChunk):
            for each in message.tool_calls:
                if each["id"]:
                    arguments = [dumps_anything(each["args"])]
                    self._asked[key[0], each["id"]] = AskedCall(each["name"], said, arguments)
            return
        for chunk in message.tool_call_chunks:
            place = (key, chunk.get("index"))
            if chunk.get("id"):
                call = AskedCall(chunk["name"] or "", said)
                self._places[place] = self._asked[key[0], chunk["id"] or ""] = call
            found = self._places.get(place)
            if found is not None:
                found.pieces.append(chunk["args"] or "")


def pieces(message: AIMessage) -> Iterator[Piece]:
    """What a message, or a piece of one, adds to what users read."""
    thought = message.additional_kwargs.get("reasoning_content")
    if isinstance(thought, str) and thought:
        yield "reasoning", thought
    if isinstance(message.content, str):
        if message.content:
            yield "text", message.content
        return
    for block in message.content_blocks:
        if block["type"] == "text" and block.get("text"):
            yield "text", block["text"]
        elif block["type"] == "reasoning" and block.get("reasoning"):
            yield "reasoning", block["reasoning"]
