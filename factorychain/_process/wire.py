"""Frames between the agents service and one run process, over a stream socket.

A frame is `u32 length, u8 kind, payload` (big endian; the length is that of the payload). Invariant: what
is decoded is bounded by its kind's limit before a byte of it is kept, so that neither side can make the
other hold more than that; a length or kind that is not possible ends the connection.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

_HEADER: Final = struct.Struct("!IB")
HEADER_BYTES: Final = _HEADER.size
EVENT_MAX_BYTES: Final = 1024 * 1024
"""Of an event, with its kind: as much as the host takes of any instance."""
_CONTROL_MAX_BYTES: Final = 64 * 1024
_WHOLE_MAX_BYTES: Final = 6 * 1024 * 1024
WINDOW_BYTES: Final = 64 * 1024
"""Events that an instance may have sent and the service not yet passed on; one more may be on top."""
ENTRY_BYTES: Final = 64
"""What an event counts for in the window beside its own bytes."""
REQUESTS_MAX: Final = 32
"""Requests of an instance that may be under way at once."""
REQUEST_BODY_MAX_BYTES: Final = 1024 * 1024
"""Of one request beside its arguments."""
BODIES_MAX_BYTES: Final = 2 * REQUEST_BODY_MAX_BYTES
"""Of all requests that are under way."""


class ToInstance(IntEnum):
    """Kinds of what a run process is told."""

    START = 1
    """The run: `RunSpec` in parts."""
    CANCEL = 2
    REJECT = 3
    """An event was rejected on its way: `{"reason", "message"}`."""
    ROOM = 4
    """u32: bytes of events that were passed on."""
    ANSWER_PART = 5
    """u32 request, then one part of its answer."""
    ANSWER_END = 6
    """u32 request, then nothing, or why there is no answer."""
    CLOSED = 7
    """Nothing that is said from now on is passed on."""


class FromInstance(IntEnum):
    """Kinds of what a run process says."""

    READY = 65
    """It waits for its run; what of its sandbox the kernel lacks: `[…]`."""
    EVENT = 66
    """u32 kind of the event, then the event."""
    BEAT = 67
    CREATED = 68
    SPAN = 69
    REQUEST = 70
    """u32 request, u32 length of the arguments, `{"call", …}`, then the body."""
    OUTPUT = 71
    """What the agent's code wrote: u8 stream (1 or 2), then UTF-8."""
    OUTCOME = 72
    """What the run came to; the last frame."""
    FORGET = 73
    """u32 request, whose answer nobody waits for any more."""


_LIMITS: Final[dict[int, int]] = {
    ToInstance.START: _WHOLE_MAX_BYTES,
    ToInstance.CANCEL: 0,
    ToInstance.REJECT: _CONTROL_MAX_BYTES,
    ToInstance.ROOM: 4,
    ToInstance.ANSWER_PART: _WHOLE_MAX_BYTES,
    ToInstance.ANSWER_END: _CONTROL_MAX_BYTES,
    ToInstance.CLOSED: 0,
    FromInstance.READY: _CONTROL_MAX_BYTES,
    FromInstance.EVENT: EVENT_MAX_BYTES + 4,
    FromInstance.BEAT: 0,
    FromInstance.CREATED: 0,
    FromInstance.SPAN: _CONTROL_MAX_BYTES,
    FromInstance.REQUEST: _CONTROL_MAX_BYTES + REQUEST_BODY_MAX_BYTES,
    FromInstance.OUTPUT: _CONTROL_MAX_BYTES,
    FromInstance.OUTCOME: _WHOLE_MAX_BYTES,
    FromInstance.FORGET: 4,
}


class BrokenFrame(ValueError):
    """What arrived is no frame, or one that cannot be meant; the text says what is wrong with it."""


def frame(kind: ToInstance | FromInstance, payload: bytes = b"") -> bytes:
    """One frame.

    Raises:
        BrokenFrame: the payload is larger than its kind may be.
    """
    if len(payload) > _LIMITS[kind]:
        raise BrokenFrame(f"{kind.name} of {len(payload)} bytes; at most {_LIMITS[kind]}")
    return _HEADER.pack(len(payload), kind) + payload


class Decoder:
    """Cuts a stream into frames, whatever pieces it comes in."""

    def __init__(self, kinds: type[ToInstance] | type[FromInstance]) -> None:
        self._limits = {int(kind): _LIMITS[kind] for kind in kinds}
        self._buffer = bytearray()

    @property
    def waiting_bytes(self) -> int:
        """What has come of a frame that is not whole yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take what has arrived."""
        self._buffer += data

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """The frames that are whole, each once, as (kind, payload).

        Raises:
            BrokenFrame: the stream is no stream of frames; nothing after that can be read.
        """
        buffer, at = self._buffer, 0
        try:
            while len(buffer) - at >= HEADER_BYTES:
                length, kind = _HEADER.unpack_from(buffer, at)
                limit = self._limits.get(kind)
                if limit is None:
                    raise BrokenFrame(f"kind {kind} is none of this direction's")
                if length > limit:
                    raise BrokenFrame(f"kind {kind} of {length} bytes; at most {limit}")
                end = at + HEADER_BYTES + length
                if len(buffer) < end:
                    return
                payload = bytes(buffer[at + HEADER_BYTES : end])
                at = end
                yield kind, payload
        finally:
            # In one go, not for each frame: a burst of small ones must not cost the square of it.
            del buffer[:at]
