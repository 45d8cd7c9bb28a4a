"""What the agent's code prints, to the service: it knows the run, and how it logs.

Invariant: `sys.stdout` and `sys.stderr` never block and never fail, whatever becomes of what is written.
"""

from __future__ import annotations

import io
import sys
from typing import Final

from factorychain._process.outbox import Outbox
from factorychain._process.wire import FromInstance, frame

_PIECE_BYTES: Final = 32 * 1024


def capture(outbox: Outbox) -> None:
    """From now on what Python code prints goes to the service."""
    sys.stdout = _stream(1, outbox)
    sys.stderr = _stream(2, outbox)


def flush() -> None:
    """Send what was not ended by a line end."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def _stream(number: int, outbox: Outbox) -> io.TextIOWrapper:
    buffered = io.BufferedWriter(_Frames(number, outbox), _PIECE_BYTES)
    return io.TextIOWrapper(buffered, "utf-8", "backslashreplace", line_buffering=True)


class _Frames(io.RawIOBase):
    """Bytes as `OUTPUT` frames."""

    def __init__(self, number: int, outbox: Outbox) -> None:
        super().__init__()
        self._number = number
        self._outbox = outbox

    def fileno(self) -> int:
        return self._number

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        piece = bytes(memoryview(data)[:_PIECE_BYTES])  # type: ignore[arg-type]
        self._outbox.post(frame(FromInstance.OUTPUT, bytes([self._number]) + piece), loose=True)
        return len(piece)
