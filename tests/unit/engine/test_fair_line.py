"""Whose turn it is when an engine is full."""

from __future__ import annotations

from factorychain._core.ids import Principal
from factorychain_engine.fair_line import FairLine


def line(*waiting: str) -> FairLine:
    found = FairLine()
    for each in waiting:
        found.join(Principal(*each.split("/")))
    return found


def order(waiting: FairLine) -> list[str]:
    found = []
    while (following := waiting.next()) is not None:
        found.append(f"{following.tenant}/{following.user}")
    return found


def test_tenants_take_turns_and_then_their_users() -> None:
    assert order(line("a/1", "a/2", "a/3", "b/1", "c/1", "b/2")) == [
        "a/1",
        "b/1",
        "c/1",
        "a/2",
        "b/2",
        "a/3",
    ]


def test_who_waits_already_keeps_its_turn_and_who_leaves_has_none() -> None:
    waiting = line("a/1", "a/2", "b/1")
    waiting.join(Principal("a", "1"))
    assert len(waiting) == 3
    waiting.leave(Principal("a", "2"))
    waiting.leave(Principal("x", "2"))
    assert order(waiting) == ["a/1", "b/1"]


def test_who_has_had_its_turn_waits_behind_the_others() -> None:
    waiting = line("a/1", "b/1")
    first = waiting.next()
    assert first == Principal("a", "1")
    waiting.join(first)
    assert order(waiting) == ["b/1", "a/1"]
