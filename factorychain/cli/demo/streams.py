"""Several users' streams, drawn side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from factorychain.cli.events_view import event_line
from factorychain.client import Event

_MIN_WIDTH = 36
_HEIGHT = 26
_BORDER = 4


@dataclass(slots=True)
class UserStream:
    """What one user has seen so far."""

    user: str
    question: str
    events: list[Event] = field(default_factory=list)

    @property
    def answer(self) -> str:
        """What was streamed of the answer."""
        return "".join(each.text for each in self.events if each.type == "message_delta").strip()

    def panel(self, width: int) -> Panel:
        """The stream in a box of a fixed height; what does not fit is left out."""
        known = (event_line(event) for event in self.events)
        lines = [Text(self.question, style="bold"), *(line for line in known if line is not None)]
        answer = [Text(), *map(Text, self.answer.splitlines())]
        # The ending stays in sight below the answer.
        ended = bool(self.events) and self.events[-1].is_ending
        last = [lines.pop()] if ended else []
        room = _HEIGHT - len(lines) - len(last) - 2
        shown = [*lines, *answer[: max(0, room)], *last]
        for text in shown:
            text.truncate(width - _BORDER, overflow="ellipsis")
        return Panel(Text("\n").join(shown), title=self.user, width=width, height=_HEIGHT)


def side_by_side(streams: Iterable[UserStream], console: Console) -> Table:
    """One column for each stream."""
    columns = list(streams)
    width = max(_MIN_WIDTH, console.width // len(columns) - 1)
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_row(*(each.panel(width) for each in columns))
    return table
