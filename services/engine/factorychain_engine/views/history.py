"""Which runs of a thread count as its history, and in which order.

Invariant: a run that replaces another hides that one and everything between the two; the order is
that of the thread's own numbering, so clocks of different engines do not shuffle it.
"""

from __future__ import annotations

from collections.abc import Iterable

from factorychain.types.v1.run_pb2 import Run


def in_order(runs: Iterable[Run]) -> list[Run]:
    """The oldest first."""
    return sorted(runs, key=_position)


def visible(runs: Iterable[Run]) -> list[Run]:
    """The oldest first, without those that were replaced."""
    kept: list[Run] = []
    for run in in_order(runs):
        if run.replaces:
            _cut(kept, run.replaces)
        kept.append(run)
    return kept


def before(runs: Iterable[Run], current: str, replaces: str) -> list[Run]:
    """The history that run `current` sees, which may replace an earlier one: the oldest first."""
    kept = visible(run for run in runs if run.run != current)
    if replaces:
        _cut(kept, replaces)
    return kept


def _cut(kept: list[Run], replaced: str) -> None:
    for index, run in enumerate(kept):
        if run.run == replaced:
            del kept[index:]
            return


def _position(run: Run) -> tuple[int, int, int, str]:
    return (run.epoch, run.after, run.created_at.ToNanoseconds(), run.run)
