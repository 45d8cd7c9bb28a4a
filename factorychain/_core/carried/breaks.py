"""What is said of streams that carry calls and break: each is counted, and logged at every doubling.

Invariant: a stream that breaks again and again, or cannot be opened, is one line at first and ever fewer
after; one that carried for a while begins anew. No I/O and no clock but the caller's.
"""

from __future__ import annotations

from typing import Final

import grpc

from factorychain._core.link.run import HEALTHY_AFTER_S
from factorychain._core.logging import get_logger
from factorychain._core.metrics import counter

log = get_logger(__name__)

_broken = counter(
    "factorychain.carried.streams_broken",
    "Streams of calls that broke or could not be opened, by peer",
    "{stream}",
)

# Layers start, stop and start again in any order: a peer that is not there at so many tries is worth a warning.
_TRIES: Final = 8


class Breaks:
    """Those of one stream after another to the same peer."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._in_a_row = 0
        self._was_ever_up = False

    def ended(self, error: BaseException | None, *, up_s: float | None, calls: int) -> None:
        """A stream is over. `up_s`: how long it carried; None: the peer never answered on it. `calls`: in
        hand when it ended.
        """
        self._was_ever_up = self._was_ever_up or up_s is not None
        if up_s is not None and up_s >= HEALTHY_AFTER_S:
            self._in_a_row = 0
        if error is None:
            return
        _broken.add(1, {"peer": self._peer})
        self._in_a_row += 1
        if self._in_a_row & (self._in_a_row - 1) == 0:
            self._say(error, opened=up_s is not None, calls=calls)

    def _say(self, error: BaseException, *, opened: bool, calls: int) -> None:
        said = {
            "peer": self._peer,
            "broken": self._in_a_row,
            "calls": calls,
            "cause": _cause(error),
        }
        if opened:
            # Without calls it harms nobody: for instance, its connection was of the age to be closed.
            say = log.warning if calls else log.info
            say("a stream that carries calls broke", **said)
        elif self._in_a_row >= _TRIES:
            log.warning("no stream to carry calls can be opened", **said)
        else:
            say = log.info if self._was_ever_up else log.debug
            say("no stream to carry calls is open yet", **said)


def _cause(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return repr(error)
