"""What a run process printed, in lines.

Invariant: a line is shown once and whole, unless it is longer than any line should be; what is not text
is shown as far as it is.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Final

Show = Callable[[str, str, str], None]
"""Shows what a run printed: run, stream (`stdout` or `stderr`), lines without the last line end."""

_LINE_MAX_CHARS: Final = 16_384
_STREAMS: Final = {1: "stdout", 2: "stderr"}


class PrintedLines:
    """The lines of one run."""

    def __init__(self, run: str, show: Show) -> None:
        self._run = run
        self._show = show
        self._partial = dict.fromkeys(_STREAMS, "")
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {number: decoder("replace") for number in _STREAMS}

    def add(self, payload: bytes) -> None:
        """A frame: the stream's number, then what was written to it."""
        number = payload[0] if payload and payload[0] in _STREAMS else 2
        whole = self._partial[number] + self._decoders[number].decode(payload[1:])
        done, _, rest = whole.rpartition("\n")
        if len(rest) > _LINE_MAX_CHARS:
            done, rest = whole, ""
        self._partial[number] = rest
        if done:
            self._show(self._run, _STREAMS[number], done)

    def finish(self, words: str) -> None:
        """The end: what is left of both streams, and what was written past Python."""
        for number, rest in self._partial.items():
            if rest:
                self._show(self._run, _STREAMS[number], rest)
        if words.strip():
            self._show(self._run, "stderr", words.rstrip())
