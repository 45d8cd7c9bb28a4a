"""What came of a seed: enough to say what failed, and whether it took the same course again."""

from __future__ import annotations

from dataclasses import dataclass, field

_TRACE_LINES = 40


@dataclass
class Result:
    """What came of one."""

    seed: int
    violations: list[str]
    trace: list[str]
    digest: int
    counts: dict[str, int] = field(default_factory=dict)
    crashed: list[str] = field(default_factory=list)
    """The crash points at which processes have died."""

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {each}" for each in self.violations]
        return "\n".join([*lines, *self.trace[-_TRACE_LINES:]])
