"""A thread's history: in its own order, without what was replaced."""

from __future__ import annotations

from factorychain.types.v1.run_pb2 import Run
from factorychain_engine.views.history import before, in_order, visible


def run(name: str, after: int, *, replaces: str = "", epoch: int = 1, at: int = 0) -> Run:
    made = Run(run=name, after=after, epoch=epoch, replaces=replaces)
    made.created_at.seconds = at
    return made


def names(runs: list[Run]) -> list[str]:
    return [each.run for each in runs]


def test_the_order_is_that_of_the_numbering_whatever_the_clocks_say() -> None:
    runs = [run("c", 0, epoch=2, at=1), run("b", 5, at=1), run("a", 0, at=9)]
    assert names(in_order(runs)) == ["a", "b", "c"]


def test_a_replaced_run_hides_with_all_after_it() -> None:
    runs = [run("a", 0), run("b", 2), run("c", 4), run("d", 6, replaces="b"), run("e", 8)]
    assert names(visible(runs)) == ["a", "d", "e"]


def test_a_replacement_can_be_replaced() -> None:
    runs = [run("a", 0), run("b", 2, replaces="a"), run("c", 4, replaces="b")]
    assert names(visible(runs)) == ["c"]


def test_replacing_what_is_hidden_hides_nothing_more() -> None:
    runs = [run("a", 0), run("b", 2), run("c", 4, replaces="b"), run("d", 6, replaces="b")]
    assert names(visible(runs)) == ["a", "c", "d"]


def test_a_run_sees_what_came_before_it() -> None:
    runs = [run("a", 0), run("b", 2), run("now", 4)]
    assert names(before(runs, "now", "")) == ["a", "b"]
    assert names(before(runs, "now", "b")) == ["a"]
    assert names(before(runs, "now", "nothing of this thread")) == ["a", "b"]
