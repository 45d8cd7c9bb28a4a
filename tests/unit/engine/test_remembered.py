"""What is remembered is bounded."""

from __future__ import annotations

from factorychain_engine.remembered import Remembered


def test_what_was_put_longest_ago_is_forgotten_first() -> None:
    remembered: Remembered[int] = Remembered(2)
    remembered.put("a", 1)
    remembered.put("b", 2)
    remembered.put("a", 3)
    remembered.put("c", 4)
    assert [remembered.get(key) for key in "abc"] == [3, None, 4]
    assert len(remembered) == 2


def test_forgetting_says_what_it_was() -> None:
    remembered: Remembered[int] = Remembered(2)
    remembered.put("a", 1)
    assert (remembered.forget("a"), remembered.forget("a")) == (1, None)
