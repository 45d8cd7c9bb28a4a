"""Which sub-agent, or part of a graph, says something: the names on the way there from the run's agent.

Invariant: names are such as every layer takes, and there are no more of them than one takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from factorychain._instance.values import clean_text
from factorychain.types.v1.event_pb2 import Event

NAMES_MAX: Final = 16
_NAME_MAX_CHARS: Final = 128


@dataclass(frozen=True, slots=True)
class EventPath:
    """The `path` of events; that of the run's own agent is empty."""

    names: tuple[str, ...] = ()
    field: bytes = b""
    """The names as they are in a serialized event, to be put behind it."""

    def within(self, *names: str) -> EventPath:
        """The path of something inside; what is deeper than a path can say has that of what it is in."""
        whole = (*self.names, *(_clean(each) for each in names))[:NAMES_MAX]
        return EventPath(whole, Event(path=whole).SerializeToString())


TOP: Final = EventPath()


def _clean(name: str) -> str:
    printable = "".join(each if each.isprintable() else " " for each in clean_text(name))
    return printable[:_NAME_MAX_CHARS] or "agent"
