"""What both ends of a link must count alike: the cost of an event and the first window."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

INITIAL_WINDOW_BYTES: Final = 65_536
"""What a sender may have in flight before `RunOpened` has named the window."""

MESSAGE_BYTES: Final = 512 * 1024
"""A message on the stream is filled up to here; one event larger than that travels alone."""

TURN_BYTES: Final = 64 * 1024
"""What one run may put into a message before the next run has its turn."""

ENTRY_MAX_BYTES: Final = 3 * 1024 * 1024
"""What may travel in one piece, below the largest gRPC message: a larger one would break the stream
of all runs, again after every reconnect."""

_OVERHEAD_BYTES: Final = 64


_REQUEST: Final = " "


def request_key(request: str) -> str:
    """A request for input among the calls of a run that are open. No call's id has a space."""
    return _REQUEST + request


def open_ids(keys: Collection[str]) -> tuple[list[str], list[str]]:
    """The calls and the requests that these keys stand for."""
    calls = sorted(each for each in keys if not each.startswith(_REQUEST))
    requests = sorted(each[1:] for each in keys if each.startswith(_REQUEST))
    return calls, requests


def event_cost(event: bytes) -> int:
    """What an event takes of a window: its bytes and a share for holding it, so that a flood of
    empty events is bounded too.
    """
    return len(event) + _OVERHEAD_BYTES


def fits(cost: int, in_flight: int, window: int) -> bool:
    """Whether an event may be sent now. An event larger than the window may travel alone."""
    return in_flight == 0 or in_flight + cost <= window
