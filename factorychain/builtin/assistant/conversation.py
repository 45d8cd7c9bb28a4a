"""What the model is sent: instructions, earlier turns as far as there is room, and the present one.

Invariant: what is sent fits the window by our estimate, or `TooLong` says so; the present turn is always
whole but for results of tools, of which the oldest are left out first; a call of a tool and its result
are never apart.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final, TypeAlias

from factorychain._instance.values import dumps
from factorychain.builtin.assistant.tokens import BYTES_PER_TOKEN, tokens
from factorychain.history import PastRun
from factorychain.input import FilePart, ImagePart, Input, Json, TextPart

Message: TypeAlias = dict[str, Json]

LEFT_OUT: Final = "[left out: the conversation has grown too long for this result]"
_CUT: Final = "\n[cut: the result is longer than fits the conversation]"
_RESULT_SHARE: Final = 4
"""No result of a tool takes more than one part of so many of the window."""
_MAGIC: Final = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)


class TooLong(Exception):
    """The present turn alone does not fit."""


class Conversation:
    """The messages of one run."""

    def __init__(
        self,
        instructions: str,
        history: Sequence[PastRun],
        input: Input,
        *,
        window_tokens: int,
        beside_tokens: int = 0,
    ) -> None:
        """Collect what there is.

        Args:
            instructions: what the model is told about itself; nothing if empty.
            history: earlier runs, the oldest first.
            input: the present one's.
            window_tokens: what fits.
            beside_tokens: what of it the answer and the descriptions of tools take.
        """
        self._system: list[Message] = (
            [{"role": "system", "content": instructions}] if instructions else []
        )
        self._turns = [_past_turn(each) for each in history]
        self._present: list[Message] = [{"role": "user", "content": user_content(input)}]
        self._images: list[ImagePart] = []
        self._room = window_tokens - beside_tokens
        self._result_bytes = int(max(self._room, 0) * BYTES_PER_TOKEN / _RESULT_SHARE)

    def fitted(self) -> list[Message]:
        """What is sent.

        Raises:
            TooLong: it cannot be made to fit.
        """
        fixed = tokens(self._system) + tokens(self._present)
        if fixed > self._room:
            fixed -= self._shorten(fixed - self._room)
        if fixed > self._room:
            raise TooLong
        return [*self._system, *self._recent(self._room - fixed), *self._present]

    def answered(self, text: str, calls: Sequence[tuple[str, str, str]]) -> None:
        """The model has called tools.

        Args:
            text: what it said beside that.
            calls: (id, tool, arguments) of each.
        """
        made: list[Json] = [
            {"id": id, "type": "function", "function": {"name": tool, "arguments": arguments}}
            for id, tool, arguments in calls
        ]
        self._present.append({"role": "assistant", "content": text or None, "tool_calls": made})

    def result(self, call: str, text: str, images: Sequence[ImagePart] = ()) -> None:
        """What a call came to. The protocol has no images in results: they follow as the user's."""
        shown = text.encode("utf-8", "replace")
        if len(shown) > self._result_bytes:
            text = shown[: self._result_bytes].decode("utf-8", "ignore") + _CUT
        self._present.append({"role": "tool", "tool_call_id": call, "content": text})
        self._images += images

    def results_end(self) -> None:
        """All results of an answer are there."""
        images, self._images = self._images, []
        if images:
            told: list[Json] = [{"type": "text", "text": "Images that the tools have returned:"}]
            self._present.append({"role": "user", "content": [*told, *map(_image, images)]})

    def narrow(self) -> bool:
        """The model's window is smaller than was thought; False if nothing can be left out for it."""
        before = tokens(self.fitted())
        self._room = int(min(self._room, before) * 0.6)
        try:
            return tokens(self.fitted()) < before
        except TooLong:
            return False

    def _recent(self, room: int) -> list[Message]:
        """The latest whole turns that fit."""
        found: list[Message] = []
        for turn in reversed(self._turns):
            room -= tokens(turn)
            if room < 0:
                break
            found = [*turn, *found]
        return found

    def _shorten(self, excess: int) -> int:
        """Leave out the oldest results of the present turn; how much that saved."""
        saved = 0
        for message in self._present:
            if saved >= excess:
                break
            if message["role"] == "tool" and message["content"] != LEFT_OUT:
                before = tokens(message)
                message["content"] = LEFT_OUT
                saved += max(before - tokens(message), 0)
        return saved


def _past_turn(past: PastRun) -> list[Message]:
    turn: list[Message] = [{"role": "user", "content": user_content(past.input)}]
    if past.output is not None:
        text = past.output if isinstance(past.output, str) else dumps(past.output)
        turn.append({"role": "assistant", "content": text})
    return turn


def user_content(input: Input) -> Json:
    """A turn of the user as the protocol has it: plain text, or parts."""
    parts: list[Json] = []
    for part in input.content:
        if isinstance(part, TextPart):
            parts.append({"type": "text", "text": part.text})
        elif isinstance(part, ImagePart):
            parts.append(_image(part))
        else:
            parts.append(_file(part))
    if input.has_data:
        parts.append({"type": "text", "text": f"Data: {dumps(input.data)}"})
    if len(parts) == 1 and isinstance(parts[0], dict) and parts[0]["type"] == "text":
        return parts[0]["text"]
    return parts


def _image(part: ImagePart) -> Json:
    url = part.url or _data_url(part.data, part.media_type or _image_type(part.data))
    return {"type": "image_url", "image_url": {"url": url}}


def _file(part: FilePart) -> Json:
    if part.url:
        return {"type": "text", "text": f"File: {part.url}"}
    kind = part.media_type or "application/pdf"
    if kind.startswith("text/") or kind == "application/json":
        return {"type": "text", "text": part.data.decode("utf-8", "replace")}
    name = f"file.{kind.rpartition('/')[2]}"
    return {"type": "file", "file": {"filename": name, "file_data": _data_url(part.data, kind)}}


def _image_type(data: bytes) -> str:
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), "image/png")


def _data_url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
