"""`python -m tests.simulation --seeds N [--seed S]`: exit status 1 if a seed fails."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from functools import partial
from time import perf_counter

from tests.simulation import reality

_real_s = perf_counter

_TELL_EVERY_S = 10.0
_CRASH_BATCH = 4
"""Few enough that the search ends soon after the last point was hit."""


def main() -> int:
    arguments = _arguments()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of strings have another order in every process, and a seed another course.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    reality.take_over()
    if arguments.bugs is not None:
        from tests.simulation.hunting import find_all

        return find_all(arguments.bugs, arguments.seeds, arguments.jobs, known=arguments.known)
    if arguments.crash_points:
        return _crash(arguments)
    return _search(arguments)


def _search(arguments: argparse.Namespace) -> int:
    from tests.simulation.running import simulate_all  # after the clocks were replaced

    began_s, totals, failed, number = _real_s(), Counter[str](), 0, 0
    seeds = range(arguments.seed, arguments.seed + arguments.seeds)
    tell = _Progress(began_s, arguments.seeds)
    for result in simulate_all(seeds, arguments.jobs):
        number += 1
        tell(number)
        totals.update(result.counts)
        if arguments.digests:
            print(f"{result.seed} {result.digest:08x}")
        if result.violations:
            failed += 1
            print(f"{result}\nagain: python -m tests.simulation --seed {result.seed}", flush=True)
            if failed >= arguments.failures:
                break
    said = ", ".join(f"{count} {name}" for name, count in totals.items())
    took_s = _real_s() - began_s
    print(f"{number} seeds in {took_s:.1f} s, {failed} failed: {said}", flush=True)
    return 1 if failed else 0


class _Progress:
    """Says every ten seconds how far a long search is."""

    def __init__(self, began_s: float, seeds: int) -> None:
        self._began_s = self._told_s = began_s
        self._seeds = seeds

    def __call__(self, number: int) -> None:
        now_s = _real_s()
        if now_s - self._told_s >= _TELL_EVERY_S:
            self._told_s = now_s
            took_s = now_s - self._began_s
            print(f"{number} of {self._seeds} seeds in {took_s:.0f} s", file=sys.stderr, flush=True)


def _crash(arguments: argparse.Namespace) -> int:
    """Seeds in which processes die at crash points, until each has been hit a few times."""
    from tests.simulation.crashes import never_hit
    from tests.simulation.running import simulate, simulate_all

    began_s, hits, number = _real_s(), Counter[str](), 0
    seeds = range(arguments.seed, arguments.seed + arguments.seeds)
    one = partial(simulate, at_crash_points=True)
    for result in simulate_all(seeds, arguments.jobs, batch=_CRASH_BATCH, one=one):
        number += 1
        hits.update(result.crashed)
        if result.violations:
            print(
                f"{result}\nagain: python -m tests.simulation --crash-points --seed {result.seed}"
            )
            return 1
        if not never_hit(hits, arguments.times):
            break
    left = never_hit(hits, arguments.times)
    took_s = _real_s() - began_s
    print(f"{number} seeds in {took_s:.1f} s, {hits.total()} deaths at {len(hits)} crash points")
    if left and len(seeds) > 1:
        print(f"fewer than {arguments.times} at " + ", ".join(f"{n} ({hits[n]})" for n in left))
    return 1 if left and len(seeds) > 1 else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="the first")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once")
    parser.add_argument("--failures", type=int, default=1, help="how many before it stops")
    parser.add_argument(
        "--digests", action="store_true", help="print what each seed's course comes to"
    )
    parser.add_argument(
        "--crash-points",
        action="store_true",
        help="processes die there, and nothing else goes wrong",
    )
    parser.add_argument("--times", type=int, default=3, help="how often at each crash point")
    parser.add_argument("--bugs", nargs="*", help="seed bugs (all, or by name) and look for them")
    parser.add_argument(
        "--known", action="store_true", help="try seeds first that have found bugs before"
    )
    return parser.parse_args()


if __name__ == "__main__":
    status = main()
    from tests.simulation.running import leave

    leave(status)
