"""A seed alone decides what is broken; everything has its turn."""

from __future__ import annotations

import itertools

from tests.chaos.faults import FREEZE, KILL, KINDS, all_faults, in_turn


def test_a_seed_repeats_its_faults() -> None:
    first, again = (list(itertools.islice(in_turn("7", KINDS, 5), 60)) for _ in range(2))
    assert first == again
    assert first != list(itertools.islice(in_turn("8", KINDS, 5), 60))


def test_everything_has_its_turn_before_anything_has_a_second() -> None:
    every = all_faults(KINDS)
    drawn = [each for pair in itertools.islice(in_turn("7", KINDS, 5), 80) for each in pair]
    assert {(each.kind, each.where) for each in drawn[: len(every)]} == set(every)


def test_a_pair_breaks_two_parts() -> None:
    pairs = [each for each in itertools.islice(in_turn("7", KINDS, 5), 200) if len(each) == 2]
    assert pairs
    assert all(one.where != other.where for one, other in pairs)


def test_only_what_was_asked_for_is_done() -> None:
    drawn = itertools.islice(in_turn("7", (KILL, FREEZE), 3), 40)
    lengths = {each.kind: each.lasts_s for pair in drawn for each in pair}
    assert set(lengths) == {KILL, FREEZE}
    assert lengths[KILL] == 0
    assert 0.5 <= lengths[FREEZE] <= 3
