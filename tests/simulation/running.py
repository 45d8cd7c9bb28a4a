"""Runs many seeds: each batch in a child of its own, several at once.

Invariants: nothing of a simulation outlives its batch: what a killed process leaves in mid-await is
never destroyed coroutine by coroutine (its `finally` clauses would run in a world that is over), it
goes with the child. Children end before whoever asked for what they find goes on.
"""

from __future__ import annotations

import gc
import io
import os
import pickle
import select
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import redirect_stderr
from functools import partial
from itertools import count
from typing import NoReturn, TypeVar

from tests.simulation import services
from tests.simulation.result import Result
from tests.simulation.world import World

T = TypeVar("T")

BATCH = 40
"""Seeds in a child: few enough that what they leave fits into memory."""
_WARM = (2, 3)
"""Seeds whose simulation fills every cache before there are children, which inherit them."""
_READ_BYTES = 1 << 20


def simulate(seed: int, *, at_crash_points: bool = False) -> Result:
    """Runs one seed in this process; afterwards the process is good for nothing but more of them."""
    gc.disable()
    world = World(seed, at_crash_points=at_crash_points)
    _kept.append(world)
    with redirect_stderr(_Printed(world.note)):
        return world.run()


_kept: list[World] = []


class _Printed(io.TextIOBase):
    """What agents print, such as the tracebacks of those that were stopped."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note

    def write(self, text: str) -> int:
        self._note(f"printed: {text.rstrip().rpartition(chr(10))[2]}")
        return len(text)


def simulate_all(
    seeds: Sequence[int],
    jobs: int,
    prepare: Callable[[], None] = lambda: None,
    batch: int = BATCH,
    one: Callable[[int], Result] = simulate,
) -> Generator[Result]:
    """Runs the seeds and yields what came of each, in order. `prepare` runs in each child, `one` a seed."""
    batches = [seeds[start : start + batch] for start in range(0, len(seeds), batch)]
    found = in_children([partial(_batch, each, prepare, one) for each in batches], jobs)
    try:
        for results in found:
            yield from results
    finally:
        found.close()


def leave(status: int) -> NoReturn:
    """Ends this process, and what it has simulated in an instant."""
    if _kept:
        services.remove_keys()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _batch(
    seeds: Sequence[int], prepare: Callable[[], None], one: Callable[[int], Result]
) -> list[Result]:
    prepare()
    return [one(seed) for seed in seeds]


def warm() -> None:
    """What every simulation needs, and takes longer than one."""
    if not _kept:
        services.warm()
        for seed in _WARM:
            _ = simulate(seed)


def in_children(works: Sequence[Callable[[], T]], jobs: int) -> Generator[T]:
    """Does each work in a child of its own, and yields what they return, in order."""
    warm()
    running: dict[int, _Child] = {}
    done: dict[int, T] = {}
    waiting, wanted = iter(enumerate(works)), count()
    following = next(wanted)
    try:
        while running or following < len(works):
            for number, work in _some(waiting, jobs - len(running)):
                child = _Child(number, work)
                running[child.readable] = child
            for readable in select.select([*running], [], [])[0]:
                if running[readable].has_ended():
                    child = running.pop(readable)
                    done[child.number] = child.result()
            while following in done:
                yield done.pop(following)
                following = next(wanted)
    finally:
        for child in running.values():
            child.kill()


def _some(waiting: Iterator[T], most: int) -> Iterator[T]:
    for _ in range(most):
        try:
            yield next(waiting)
        except StopIteration:
            return


class _Child:
    """One piece of work, in a fork of this process."""

    def __init__(self, number: int, work: Callable[[], object]) -> None:
        self.number = number
        self._data = bytearray()
        self.readable, writable = os.pipe()
        sys.stdout.flush()
        self._pid = os.fork()
        if not self._pid:
            os.close(self.readable)
            _do(work, writable)
        os.close(writable)

    def has_ended(self) -> bool:
        """Reads what there is; call it when there is something, or an end."""
        read = os.read(self.readable, _READ_BYTES)
        self._data += read
        return not read

    def result(self) -> T:  # type: ignore[type-var]  # whatever its work returned
        self._gone()
        if not self._data:
            raise RuntimeError("a batch of seeds failed; its traceback stands above")
        found: T = pickle.loads(self._data)
        return found

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        self._gone()

    def _gone(self) -> None:
        os.close(self.readable)
        _ = os.waitpid(self._pid, 0)


def _do(work: Callable[[], object], writable: int) -> NoReturn:
    status = 1
    try:
        data = pickle.dumps(work())
        with os.fdopen(writable, "wb") as pipe:
            _ = pipe.write(data)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
