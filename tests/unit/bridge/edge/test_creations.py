"""How long the chain takes to make a run, seen from a socket."""

from __future__ import annotations

from factorychain_bridge.edge.creations import Creations


class Stopwatch:
    """Time that a test sets, and what was recorded."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.recorded: list[float] = []
        self.creations = Creations(lambda: self.now_s, self.recorded.append)


def test_the_first_event_of_a_run_ends_its_creation() -> None:
    watch = Stopwatch()
    watch.creations.begin("r1")
    watch.now_s = 2.5
    watch.creations.shown("r1")
    watch.creations.shown("r1")
    assert watch.recorded == [2.5]
    assert len(watch.creations) == 0


def test_a_repeated_start_counts_from_the_first() -> None:
    watch = Stopwatch()
    watch.creations.begin("r1")
    watch.now_s = 1.0
    watch.creations.begin("r1")
    watch.creations.shown("r1")
    assert watch.recorded == [1.0]


def test_a_run_of_another_start_and_a_refused_one_are_not_counted() -> None:
    watch = Stopwatch()
    watch.creations.begin("r1")
    watch.creations.forget("r1")
    watch.creations.shown("r1")
    watch.creations.shown("r2")
    assert watch.recorded == []


def test_runs_that_show_nothing_here_are_forgotten() -> None:
    watch = Stopwatch()
    for number in range(1000):
        watch.creations.begin(f"r{number}")
    assert len(watch.creations) == 64
    watch.creations.shown("r999")
    assert len(watch.recorded) == 1
