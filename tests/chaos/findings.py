"""What a check comes to: what was looked at, and what breaks a promise."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

LOSS: Final = "losses"
REPEAT: Final = "repeats"
ORDER: Final = "order breaks"
DOUBLE: Final = "double endings"
ENDLESS: Final = "runs without ending"
LEAK: Final = "leaks"
UNEXPLAINED: Final = "endings without a cause"
OPEN: Final = "calls left open"
RESET: Final = "resets"
ANSWER: Final = "answers lost or changed"
KINDS: Final = (LOSS, REPEAT, ORDER, DOUBLE, ENDLESS, LEAK, UNEXPLAINED, OPEN, RESET, ANSWER)


@dataclass(slots=True)
class Findings:
    """Counts, and every promise that was broken, in words."""

    started: int = 0
    """Runs that were admitted, as users were told."""
    endings: Counter[str] = field(default_factory=Counter)
    """As they were seen: type, and the reason if there is one."""
    refusals: Counter[str] = field(default_factory=Counter)
    """Starts that were refused, by reason."""
    events: int = 0
    """Seen live."""
    read_again: int = 0
    """Seen by those who joined late."""
    taken: int = 0
    """Numbers that agents were told are taken, of runs that were seen to end."""
    tails: int = 0
    """Taken from agents whose replica was then killed, and never shown: not promised."""
    repeated: int = 0
    """Runs that began again on other agents."""
    queued: int = 0
    """Runs that waited behind another one."""
    answers: int = 0
    """Answers of users that were taken."""
    answers_across: int = 0
    """Of those, to questions that were open while something was broken."""
    broken: dict[str, list[str]] = field(default_factory=lambda: {each: [] for each in KINDS})

    @property
    def good(self) -> bool:
        """Whether every promise was kept, by runs that there were."""
        return self.started > 0 and self.events > 0 and not any(self.broken.values())

    def breaks(self, kind: str, words: str) -> None:
        """A promise was broken."""
        self.broken[kind].append(words)
