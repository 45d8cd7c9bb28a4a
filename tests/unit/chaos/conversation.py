"""A conversation as a user's journal has it, to be spoilt by a test before it is checked."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.checker import Break, check
from tests.chaos.findings import Findings

Event = dict[str, Any]
EPOCH = 1_763_800_000_000
BEGAN = 1_763_800_000.0
_AT = "2025-11-22T08:26:41.000000Z"  # a second after `BEGAN`


def whole_run(run: str = "r1", canary: str = "canary-u1-q1", said: int = 4) -> list[Event]:
    """The events of a run that went well, without seq."""
    events = [event(run, "agent_started", agent="scripted")]
    for number in range(0, said, 2):
        events.append(event(run, "agent_thinking", text=f"{canary}#{number} "))
        arguments = {"text": f"{canary}#{number + 1} "}
        events.append(event(run, "tool_executing", call=f"c{number}", arguments=arguments))
        events.append(event(run, "tool_completed", call=f"c{number}", result=arguments["text"]))
    output = {"canary": canary, "said": said}
    return [*events, event(run, "agent_completed", output=output)]


def ended(run: str, kind: str, reason: str) -> Event:
    """Another ending."""
    return event(run, kind, reason=reason)


def event(run: str, kind: str, **data: object) -> Event:
    """One event, without seq."""
    return {"run": run, "type": kind, "at": _AT, "data": data}


@dataclass
class Conversation:
    """What one user saw of one thread, live and later; each may be changed."""

    events: list[Event] = field(default_factory=whole_run)
    late: list[Event] | None = None
    """As `events`, unless it is said."""
    taken: int = 3
    """Highest number that the agent printed; -1: nothing."""
    attempt: int = 1
    """Of which attempt that was."""
    agent: str = "scripted"
    notes: list[dict[str, Any]] = field(default_factory=list)
    """What else the user noted down, before anything came."""
    cancelled: bool = False
    breaks: list[Break] = field(default_factory=list)
    more: list[dict[str, Any]] = field(default_factory=list)
    """Frames after the others."""

    def __post_init__(self) -> None:
        self.events = _numbered(self.events)

    def check(self, folder: Path) -> Findings:
        """What the checker finds."""
        lines: list[dict[str, Any]] = [
            {"what": "asked", "request": "q1", "thread": "t1", "agent": self.agent},
            {"what": "joined", "reader": "live", "thread": "t1", "after": 0},
            {"what": "admitted", "request": "q1", "run": "r1", "thread": "t1"},
            *([{"what": "cancel", "run": "r1"}] if self.cancelled else []),
            *self.notes,
            *(_frame("live", each) for each in self.events),
            {"what": "joined", "reader": "late", "thread": "t1", "after": 0},
            *(_frame("late", each) for each in (self.events if self.late is None else self.late)),
            *({"what": "frame", "reader": "live", "frame": each} for each in self.more),
        ]
        journal, terminal = folder / "seen-u1.jsonl", folder / "chain.log"
        journal.write_text("".join(json.dumps({"at": BEGAN, **each}) + "\n" for each in lines))
        words = f"taken canary-u1-q1@{self.attempt}#{self.taken}"
        printed = words if self.taken >= 0 else "nothing"
        terminal.write_text(json.dumps({"text": f"of others\n{printed}"}) + "\n")
        return check([journal], [terminal], self.breaks)


def _numbered(events: list[Event]) -> list[Event]:
    return [{"seq": seq, **each} for seq, each in enumerate(events, 1)]


def _frame(reader: str, event: Event) -> dict[str, Any]:
    frame = {"op": "events", "thread": "t1", "epoch": EPOCH, "events": [event]}
    return {"what": "frame", "reader": reader, "frame": frame}
