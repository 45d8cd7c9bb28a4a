"""Server-sent events in a stream of bytes (WHATWG HTML, 9.2.5), as far as models use them.

Invariant: what goes in comes out, in the same bytes, cut only between events.
"""

from __future__ import annotations

import re
from typing import Final

_END: Final = re.compile(rb"\n\n|\r\n\r\n|\r\r")
_LONGEST_END: Final = 4
_DATA: Final = b"data:"


class FrameTooLong(Exception):
    """An event that does not end."""


class Frames:
    """Cuts a stream into events."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The events that are whole now, each with its end.

        Raises:
            FrameTooLong: one is longer than any may be.
        """
        looked_at = max(0, len(self._rest) - _LONGEST_END)
        data = self._rest + data if self._rest else data
        found, begin = [], 0
        for end in _END.finditer(data, looked_at):
            found.append(data[begin : end.end()])
            begin = end.end()
        self._rest = data[begin:] if begin else data
        if len(self._rest) > self._max_bytes:
            raise FrameTooLong
        return found

    @property
    def rest(self) -> bytes:
        """What has come of an event that is not whole."""
        return self._rest


def data_of(frame: bytes) -> bytes:
    """The data of an event; empty if it has none (a comment, which keeps a connection open)."""
    lines = frame.splitlines()
    found = [each[len(_DATA) :].removeprefix(b" ") for each in lines if each.startswith(_DATA)]
    return found[0] if len(found) == 1 else b"\n".join(found)
