"""Runs many seeds: each batch in a child of its own, several at once.

Invariant: nothing of a simulation outlives its batch. What a killed process leaves in mid-await is
never destroyed coroutine by coroutine (its `finally` clauses would run in a world that is over), it
goes with the child.
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from tests.simulation import services
from tests.simulation.world import Result, World

BATCH = 20
"""Seeds in a child: few enough that what they leave fits into memory."""


def simulate(seed: int, *, at_crash_points: bool = False) -> Result:
    """Runs one seed in this process; afterwards the process is good for nothing but more of them."""
    gc.disable()
    world = World(seed, at_crash_points=at_crash_points)
    _kept.append(world)
    return world.run()


_kept: list[World] = []


def simulate_all(
    seeds: Sequence[int],
    jobs: int,
    prepare: Callable[[], None] = lambda: None,
    batch: int = BATCH,
    one: Callable[[int], Result] = simulate,
) -> Iterator[Result]:
    """Runs the seeds and yields what came of each, in order. `prepare` runs in each child, `one` a seed."""
    services.warm()
    batches = [seeds[start : start + batch] for start in range(0, len(seeds), batch)]
    running = [_begin(each, prepare, one) for each in batches[:jobs]]
    rest = iter(batches[jobs:])
    while running:
        results = _end(*running.pop(0))
        following = next(rest, None)
        if following is not None:
            running.append(_begin(following, prepare, one))
        yield from results


def _begin(
    seeds: Sequence[int], prepare: Callable[[], None], one: Callable[[int], Result]
) -> tuple[int, int]:
    """Forks; returns the child and where its results will be read."""
    readable, writable = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.close(readable)
        _child(seeds, prepare, one, writable)
    os.close(writable)
    return child, readable


def _child(
    seeds: Sequence[int], prepare: Callable[[], None], one: Callable[[int], Result], writable: int
) -> NoReturn:
    status = 1
    try:
        prepare()
        results = [one(seed) for seed in seeds]
        with os.fdopen(writable, "wb") as pipe:
            pickle.dump(results, pipe)
        status = 0
    except BrokenPipeError:
        status = 0  # one that came before was what is looked for
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _end(child: int, readable: int) -> list[Result]:
    with os.fdopen(readable, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    if not data:
        raise RuntimeError("a batch of seeds failed; its traceback stands above")
    results: list[Result] = pickle.loads(data)
    return results
