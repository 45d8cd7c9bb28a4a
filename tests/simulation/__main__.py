"""`python -m tests.simulation --seeds N [--seed S] [--bug NAME]`: exit status 1 if a seed fails."""

from __future__ import annotations

import argparse
import os
import sys
from time import process_time

from tests.simulation import reality


def main() -> int:
    arguments = _arguments()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of strings have another order in every process, and a seed another course.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    reality.take_over()
    from tests.simulation.world import simulate  # after the clocks were replaced

    began_s, totals, failed = process_time(), dict[str, int](), 0
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        result = simulate(seed)
        for name, number in result.counts.items():
            totals[name] = totals.get(name, 0) + number
        if result.violations:
            failed += 1
            print(result, flush=True)
            if failed >= arguments.failures:
                break
        elif arguments.digests:
            print(seed, f"{result.digest:08x}")
    said = ", ".join(f"{number} {name}" for name, number in totals.items())
    print(f"{arguments.seeds} seeds, {failed} failed: {said}; {process_time() - began_s:.1f} s", flush=True)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="the first")
    parser.add_argument("--failures", type=int, default=1, help="how many before it stops")
    parser.add_argument("--digests", action="store_true", help="print what each seed's course comes to")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
