"""A seed alone decides what is broken; everything has its turn."""

from __future__ import annotations

import itertools

from tests.chaos.faults import CUT, FREEZE, KILL, KINDS, all_faults, in_turn

EVERY = all_faults(KINDS)


def test_a_seed_repeats_its_faults() -> None:
    first, again = (list(itertools.islice(in_turn("7", EVERY, 0.5, 5), 60)) for _ in range(2))
    assert first == again
    assert first != list(itertools.islice(in_turn("8", EVERY, 0.5, 5), 60))


def test_everything_has_its_turn_before_anything_has_a_second() -> None:
    drawn = [each for pair in itertools.islice(in_turn("7", EVERY, 0.5, 5), 80) for each in pair]
    assert {(each.kind, each.where) for each in drawn[: len(EVERY)]} == set(EVERY)


def test_a_pair_breaks_two_parts() -> None:
    pairs = [each for each in itertools.islice(in_turn("7", EVERY, 0.5, 5), 200) if len(each) == 2]
    assert pairs
    assert all(one.where != other.where for one, other in pairs)


def test_only_what_was_asked_for_is_done() -> None:
    every = all_faults((KILL, FREEZE, CUT), ("agents", "engine→nats"))
    drawn = [each for pair in itertools.islice(in_turn("7", every, 1, 3), 40) for each in pair]
    places = {(each.kind, each.where) for each in drawn}
    assert places == {(KILL, "agents"), (FREEZE, "agents"), (CUT, "engine→nats")}
    assert {each.lasts_s for each in drawn if each.kind == KILL} == {0}
    assert all(1 <= each.lasts_s <= 3 for each in drawn if each.kind != KILL)
