"""What a run has streamed, to recognise it in its output.

Invariant: no more is kept than an output may have: what is longer can be no output.
"""

from __future__ import annotations


class Said:
    """The texts of a run's messages."""

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self._pieces: dict[str, list[str]] = {}
        self._chars = 0

    def remember(self, message: str, text: str) -> None:
        """Keep what was streamed; if it is longer than an output may be, forget everything."""
        self._chars += len(text)
        if self._chars > self._max_chars:
            self._pieces.clear()
            return
        self._pieces.setdefault(message, []).append(text)

    def message_with(self, text: str) -> str:
        """The streamed message that has exactly this text, the last one first; empty if none has."""
        for message, pieces in reversed(self._pieces.items()):
            if sum(map(len, pieces)) == len(text) and "".join(pieces) == text:
                return message
        return ""
