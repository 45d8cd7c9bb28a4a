"""What runs came to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from factorychain.types.v1.event_pb2 import Event


def ending(events: Sequence[Event]) -> Any:
    """The data of the last event."""
    last = events[-1]
    return getattr(last, last.WhichOneof("event") or "")


def output(events: Sequence[Event]) -> Any:
    """What a run returned."""
    assert events[-1].WhichOneof("event") == "agent_completed", events[-1]
    return orjson.loads(ending(events).output_json)


def failure(events: Sequence[Event]) -> Any:
    """`agent_failed`."""
    assert events[-1].WhichOneof("event") == "agent_failed", events[-1]
    return ending(events)


def usage(events: Sequence[Event]) -> tuple[int, int, int, int, int]:
    """Tokens in, out, cached, of reasoning; requests."""
    found = ending(events).usage
    return (
        found.input_tokens,
        found.output_tokens,
        found.cached_input_tokens,
        found.reasoning_tokens,
        found.requests,
    )


def said(events: Sequence[Event]) -> str:
    """What its user saw of messages."""
    return "".join(each.message_delta.text for each in events if each.HasField("message_delta"))
