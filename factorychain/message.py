"""Streams: text of the answer, and reasoning, that the user reads while it is being written."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from factorychain._instance import events
from factorychain._instance.active import ActiveRun


class _Stream:
    """What is written piece by piece, under one id."""

    def __init__(self, run: ActiveRun) -> None:
        self._run = run
        self._pieces: list[str] = []
        self.id = run.new_id("m")
        """Unique in the run, also among streams of another kind."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    @property
    def text(self) -> str:
        """Everything that was written so far."""
        return "".join(self._pieces)


class MessageStream(_Stream):
    """One message of the answer, from `async with ctx.message() as m`.

    A run that returns exactly the text of one of its messages has that message named in its output, so
    that clients do not show the text twice.
    """

    async def write(self, text: str) -> None:
        """Append text as it is; nothing happens for an empty one. Long text becomes several events."""
        run = self._run
        for piece in run.pieces(text):
            if piece:
                event = events.message_delta(run.trace, self.id, piece)
                await run.emit(events.MESSAGE_DELTA, event)
                self._pieces.append(piece)
                run.said.remember(self.id, piece)

    say = write

    async def think(self, text: str) -> None:
        """Append to the model's reasoning that belongs to this message (`thinking_delta`)."""
        await _reason(self._run, self.id, text)


class ThinkingStream(_Stream):
    """A model's reasoning, from `async with ctx.thinking() as t`: no part of the answer."""

    async def write(self, text: str) -> None:
        """Append text as it is (`thinking_delta`); nothing happens for an empty one."""
        await _reason(self._run, self.id, text)
        self._pieces.append(text)


async def _reason(run: ActiveRun, message: str, text: str) -> None:
    for piece in run.pieces(text):
        if piece:
            event = events.thinking_delta(run.trace, message, piece)
            await run.emit(events.THINKING_DELTA, event)
