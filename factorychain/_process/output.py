"""What the agent's code prints, to the service: it knows the run, and how it logs.

Invariant: `sys.stdout` and `sys.stderr` are the same objects in a process and in those that are forked
from it, since what a module has imported keeps them (a logging handler, say); in a run process they never
block and never fail, whatever becomes of what is written.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Final

from factorychain._process.outbox import Outbox
from factorychain._process.wire import FromInstance, frame

_PIECE_BYTES: Final = 32 * 1024


class PrintedOutput:
    """Stands in for the standard streams."""

    def __init__(self) -> None:
        self._raw = [_Frames(number) for number in (1, 2)]
        self._streams = [_text(each) for each in self._raw]
        sys.stdout, sys.stderr = self._streams

    def send_to(self, outbox: Outbox) -> None:
        """From now on it goes to the service; until now it went where the process was started."""
        for each in self._raw:
            each.outbox = outbox

    def flush(self) -> None:
        """Send what was not ended by a line end."""
        for each in self._streams:
            each.flush()


def _text(raw: io.RawIOBase) -> io.TextIOWrapper:
    buffered = io.BufferedWriter(raw, _PIECE_BYTES)
    return io.TextIOWrapper(buffered, "utf-8", "backslashreplace", line_buffering=True)


class _Frames(io.RawIOBase):
    """A standard descriptor until there is an outbox, then `OUTPUT` frames."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.outbox: Outbox | None = None
        self._number = number

    def fileno(self) -> int:
        return self._number

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        piece = bytes(memoryview(data)[:_PIECE_BYTES])  # type: ignore[arg-type]  # typeshed names Buffer, which 3.11 has not
        if self.outbox is None:
            return os.write(self._number, piece)
        self.outbox.post(frame(FromInstance.OUTPUT, bytes([self._number]) + piece), loose=True)
        return len(piece)
