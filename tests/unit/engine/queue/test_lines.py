"""Which queues are looked at in a pass."""

from __future__ import annotations

from factorychain._core.ids import Principal
from factorychain_engine.queue.lines import LOOKS_A_PASS, PASSES_FOR_ALL, Lines


def lines_of(users: int) -> Lines:
    lines = Lines()
    for user in range(users):
        lines.of(Principal("acme", f"u{user}"))
    return lines


def test_a_few_are_all_looked_at_every_time() -> None:
    lines = lines_of(LOOKS_A_PASS)
    assert set(lines.due(0.0)) == set(lines) == set(lines.due(0.0))


def test_of_many_a_part_is_looked_at_and_each_in_its_turn() -> None:
    lines = lines_of(3000)
    passes = [lines.due(0.0) for _ in range(PASSES_FOR_ALL)]
    assert [len(each) for each in passes] == [250] * PASSES_FOR_ALL
    assert {each for looked in passes for each in looked} == set(lines)


def test_who_is_overdue_is_looked_at_at_once() -> None:
    lines = lines_of(3000)
    last = Principal("acme", "u2999")
    lines.of(last).overdue_at_s = 7.0
    assert last not in lines.due(6.9)
    assert last in lines.due(7.0)
    lines.forget(last)
    assert last not in lines.due(8.0)
