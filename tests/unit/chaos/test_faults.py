"""A seed alone decides what is broken; everything has its turn."""

from __future__ import annotations

import itertools

import pytest

from tests.chaos.faults import CUT, FREEZE, FULL, KILL, KINDS, all_faults, in_turn
from tests.chaos.forms import LAYERS, REPLICATED, SINGLE, layer_of

EVERY = all_faults(SINGLE, KINDS)


def test_a_seed_repeats_its_faults() -> None:
    first, again = (list(itertools.islice(in_turn("7", EVERY, 0.5, 5), 60)) for _ in range(2))
    assert first == again
    assert first != list(itertools.islice(in_turn("8", EVERY, 0.5, 5), 60))


def test_everything_has_its_turn_before_anything_has_a_second() -> None:
    drawn = [each for pair in itertools.islice(in_turn("7", EVERY, 0.5, 5), 80) for each in pair]
    assert {(each.kind, each.where) for each in drawn[: len(EVERY)]} == set(EVERY)


def test_every_kind_has_its_turn_before_one_has_a_second() -> None:
    for seed in "789":
        first = itertools.islice(in_turn(seed, EVERY, 0.5, 5), len(KINDS) + 2)
        drawn = [each.kind for pair in first for each in pair][: len(KINDS) + 2]
        assert len(set(drawn)) >= len(KINDS) - 1  # what would break a layer twice is put off


def test_a_pair_breaks_two_parts() -> None:
    pairs = [each for each in itertools.islice(in_turn("7", EVERY, 0.5, 5), 200) if len(each) == 2]
    assert pairs
    assert all(one.where != other.where for one, other in pairs)


def test_only_what_was_asked_for_is_done() -> None:
    every = all_faults(SINGLE, (KILL, FREEZE, CUT), ("agents", "engine→nats"))
    drawn = [each for pair in itertools.islice(in_turn("7", every, 1, 3), 40) for each in pair]
    places = {(each.kind, each.where) for each in drawn}
    assert places == {(KILL, "agents"), (FREEZE, "agents"), (CUT, "engine→nats")}
    assert {each.lasts_s for each in drawn if each.kind == KILL} == {0}
    assert all(1 <= each.lasts_s <= 3 for each in drawn if each.kind != KILL)


def test_of_replicas_and_of_nodes_a_pair_leaves_all_but_one() -> None:
    every = all_faults(REPLICATED, KINDS)
    assert {layer_of(where) for kind, where in every if kind == KILL} == set(LAYERS)
    assert {where for kind, where in every if kind == FULL} == {"nats-0", "nats-1", "nats-2"}
    for pair in itertools.islice(in_turn("7", every, 0.5, 5), 400):
        assert len({_less_one(each.where) for each in pair}) == len(pair)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("agents-0", "agents-1"),
        ("agents-0", "engine→agents-1"),
        ("engine→agents-0", "agents-1"),
        ("agents→emitter-0", "engine→emitter-1"),
        ("engine→nats-0", "nats-2"),
        ("client→edge-0", "bridge-1"),
        ("client→edge-0", "emitter→bridge-1"),
    ],
)
def test_what_leaves_no_replica_that_is_reached_is_not_done_at_once(one: str, other: str) -> None:
    drawn = itertools.islice(in_turn("7", [(KILL, one), (KILL, other)], 1, 3), 60)
    assert all(len(faults) == 1 for faults in drawn)


def test_other_layers_are_hit_at_once_and_of_one_process_also_what_leads_to_it() -> None:
    for pair in (("agents-0", "engine→emitter-1"), ("agents→emitter-0", "agents-1"), ("agents", "engine→agents")):  # fmt: skip
        drawn = itertools.islice(in_turn("7", [(KILL, each) for each in pair], 1, 3), 60)
        assert any(len(faults) == 2 for faults in drawn), pair


def _less_one(part: str) -> str:
    """The layer that does without one of its replicas: written down anew, not taken from what is tested."""
    name = part.partition("-")[0].rpartition("→")[2]
    return {"edge": "bridge"}.get(name, name)


def test_a_layer_may_be_named_for_all_of_its_replicas() -> None:
    assert all_faults(REPLICATED, (KILL,), ("nats",)) == [
        (KILL, f"nats-{each}") for each in range(3)
    ]
    assert all_faults(REPLICATED, (CUT,), ("engine→emitter-1",)) == [(CUT, "engine→emitter-1")]
