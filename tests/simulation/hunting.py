"""Whether seeds find the bugs that are put in (`bugs`): by the invariants, and by those alone.

Invariant: a bug counts as found if a seed fails with it, by the invariant that is there for it (`FOUND_AS`),
that passes without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import partial
from itertools import chain
from typing import Final

from tests.simulation.bugs import BUGS
from tests.simulation.result import Result
from tests.simulation.running import in_children, simulate

_BATCH: Final = 8
"""Seeds in a child: one that finds the bug ends the search when its child is done."""

FOUND_AS: Final[dict[str, tuple[str, ...]]] = {
    "no_fence": ("after a later one", "after its ending"),
    "earlier_attempts_go_on": ("after a later one",),
    "acknowledged_before_durable": ("acknowledged",),
    "double_adoption": ("was adopted by",),
    "released_by_time": ("at once",),
    "timeout_is_failure": ("events shown", "seqs"),
    "resent_without_dedup": ("step",),
    "joined_without_gap_check": ("event",),
    "opened_without_reading": ("after a later one", "after its ending", "step", "seqs"),
    "limit_without_compare_and_set": ("at once",),
    "words_of_others": ("was sent canary",),
    "never_polled": ("events shown",),
    "nobody_adopts": ("has no ending", "a place is taken"),
    "forgotten_places": ("has no ending", "a place is taken"),
    "follower_believed": ("was refused for ever",),
    "goes_on_twice": ("goes on as",),
    "answer_dropped": ("never heard the answer",),
    "later_attempt_not_counted": ("began twice",),
    "promoted_twice": ("began twice",),
    "adoption_ends_runs": ("nothing explains",),
    "broken_streams_lose_runs": ("nothing explains",),
    "agents_never_give_up": ("went on for",),
    "agents_are_lost_together": ("nothing explains",),
}
"""What the invariant says that a bug is there for: if another one notices it first, that proves nothing."""

FOUND_BY: Final[dict[str, tuple[int, ...]]] = {
    "no_fence": (1,),
    "earlier_attempts_go_on": (1,),
    "acknowledged_before_durable": (1,),
    "double_adoption": (48,),
    "released_by_time": (242,),
    "timeout_is_failure": (20,),
    "resent_without_dedup": (274, 329),
    "joined_without_gap_check": (36,),
    "opened_without_reading": (1,),
    "limit_without_compare_and_set": (394,),
    "words_of_others": (4,),
    "never_polled": (12,),
    "nobody_adopts": (48,),
    "forgotten_places": (371, 199, 531),
    "follower_believed": (147,),
    "goes_on_twice": (1,),
    "answer_dropped": (5,),
    "later_attempt_not_counted": (1,),
    "promoted_twice": (13, 266),
    "adoption_ends_runs": (48,),
    "broken_streams_lose_runs": (141,),
    "agents_never_give_up": (16, 68, 171),
    "agents_are_lost_together": (156, 165),
}
"""Seeds that have found a bug: they are tried first. Their plans suit it, so that one of them finds it
still when the services have changed a little; if none does, others are looked for, which takes longer.
After a change of the plans (`faults`) all are others, which `--bugs` without `--known` finds."""


def find_all(names: Sequence[str], seeds: int, jobs: int, *, known: bool) -> int:
    """Looks for each bug in that many seeds at most; returns the exit status.

    `known`: begins with the seeds that have found them before.
    """
    names = names or list(BUGS)
    found = _with_known(names, seeds, jobs) if known else {}
    for name in names:
        if name not in found:
            result = _first(name, range(1, seeds + 1), jobs)
            if result is not None:
                found[name] = result
        _say(name, found.get(name), seeds)
    return 1 if len(found) < len(names) else _without_bugs(found.values(), jobs)


def _with_known(names: Iterable[str], seeds: int, jobs: int) -> dict[str, Result]:
    """What the known seeds find by now: of each bug until one of them finds it, all bugs at once."""
    known = {name: [seed for seed in FOUND_BY.get(name, ()) if seed <= seeds] for name in names}
    works = [partial(_broken, name, tried) for name, tried in known.items()]
    found = zip(known, in_children(works, jobs), strict=True)
    return {name: tried[-1] for name, tried in found if tried and _shows(name, tried[-1])}


def _first(name: str, seeds: Sequence[int], jobs: int) -> Result | None:
    batches = [seeds[start : start + _BATCH] for start in range(0, len(seeds), _BATCH)]
    with closing(in_children([partial(_broken, name, each) for each in batches], jobs)) as results:
        return next((each for each in chain.from_iterable(results) if _shows(name, each)), None)


def _broken(name: str, seeds: Iterable[int]) -> list[Result]:
    """With the bug, which stays: in a child. A seed that finds it is the last."""
    BUGS[name]()
    results: list[Result] = []
    for seed in seeds:
        results.append(simulate(seed))
        if _shows(name, results[-1]):
            break
    return results


def _shows(name: str, result: Result) -> bool:
    return any(phrase in each for each in result.violations for phrase in FOUND_AS[name])


def _say(name: str, result: Result | None, seeds: int) -> None:
    if result is None:
        print(f"{name}: not found in {seeds} seeds", flush=True)
    else:
        print(f"{name}: seed {result.seed}: {result.violations[0][:160]}", flush=True)


def _without_bugs(found: Iterable[Result], jobs: int) -> int:
    """The exit status of the same seeds in services without a bug."""
    status = 0
    for result in in_children([partial(simulate, each.seed) for each in found], jobs):
        if result.violations:
            status = 1
            print(f"it fails without a bug, too: {result}", flush=True)
    return status
