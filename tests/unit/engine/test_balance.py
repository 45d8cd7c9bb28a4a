"""The next run goes to a replica that has room, rather to the one that has less to do."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from factorychain_engine.balance import UNKNOWN_ROOM_IN_S, Balance, Load, Order

ALL = ("a", "b", "c")


def load(running: int, capacity: int = 10, *, accepting: bool = True, boot: str = "") -> Load:
    return Load(boot, running, capacity, accepting, 0.0 if running < capacity else 4.0)


def balance(*loads: Load | None) -> Balance:
    made = Balance(Random(1).randrange)
    made.resolved(ALL[: len(loads)])
    for address, each in zip(ALL, loads, strict=False):
        if each is not None:
            made.heard(address, each)
    return made


def order(of: Balance, connected: str = "abc") -> Order:
    return of.order(lambda address: address in connected)


def test_one_has_room_one_is_stopping_and_one_is_full() -> None:
    replicas = balance(load(9), load(0, accepting=False), load(10))
    assert order(replicas) == Order(("a",), None)
    replicas.asked("a")
    assert replicas.room(lambda _: True) == 0, "it may be the last place"
    assert order(replicas) == Order(("a",), None), "or one that is counted already"
    assert order(replicas, connected="c") == Order((), 4.0)
    replicas.took("a")
    replicas.is_full("a", None)
    assert order(replicas) == Order((), UNKNOWN_ROOM_IN_S)  # it did not say when there is room
    replicas.left("a")
    assert order(replicas) == Order(("a",), None)


def test_runs_that_came_while_a_replica_counted_do_not_fill_it() -> None:
    replicas = balance(load(0, 10))
    for _ in range(6):
        replicas.asked("a")
    replicas.heard("a", load(6, 10))  # it has them all; its answers are on their way
    assert order(replicas) == Order(("a",), None)
    for _ in range(6):
        replicas.took("a")
    assert order(replicas) == Order(("a",), None)


def test_of_two_the_one_with_less_to_do_is_first_by_the_share_of_what_it_can_do() -> None:
    for _ in range(10):
        assert order(balance(load(6, 10), load(7, 100))).addresses == ("b", "a")


def test_two_are_drawn_so_that_not_everybody_goes_to_the_same() -> None:
    replicas = balance(load(0), load(1), load(2))
    first = Counter(order(replicas).addresses[0] for _ in range(600))
    assert first["a"] > first["b"] > 0  # b where a was not drawn
    assert first["c"] == 0  # one of every pair has less to do
    assert all(set(order(replicas).addresses) == set(ALL) for _ in range(10))


def test_what_is_begun_here_counts_until_the_replica_says_more() -> None:
    replicas = balance(load(0, 2), load(1, 10))
    for _ in range(2):
        replicas.asked("a")
        replicas.took("a")
    assert order(replicas).addresses == ("b", "a")
    replicas.heard("a", load(1, 2))
    assert set(order(replicas).addresses) == {"a", "b"}
    assert replicas.room(lambda _: True) == 1 + 9


def test_one_of_which_nothing_is_known_is_asked_and_one_that_is_away_is_not() -> None:
    replicas = balance(None, load(10))
    assert order(replicas) == Order(("a",), None)
    assert replicas.room(lambda _: True) is None
    assert order(replicas, connected="b") == Order((), 4.0)
    assert order(replicas, connected="") == Order((), None)


def test_those_that_did_not_answer_come_last() -> None:
    replicas = balance(load(0), load(9), load(8))
    replicas.silent("a")
    for _ in range(10):
        assert order(replicas).addresses == ("c", "b", "a")
    replicas.heard("a", load(0))
    assert any(order(replicas).addresses[0] == "a" for _ in range(20))


def test_one_that_took_no_runs_and_then_did_not_answer_may_take_some_by_now() -> None:
    replicas = balance(load(0, accepting=False))
    assert order(replicas) == Order((), None)
    replicas.silent("a")
    assert order(replicas) == Order(("a",), None)


def test_a_refusal_counts_until_the_replica_says_otherwise() -> None:
    replicas = balance(load(0), load(0), None)
    replicas.is_full("a", 7.0)
    replicas.takes_none("b")
    replicas.is_full("c", None)
    assert order(replicas) == Order((), UNKNOWN_ROOM_IN_S)
    replicas.unmeasured("b")  # another process may be there
    assert order(replicas) == Order(("b",), None)


def test_one_process_under_two_addresses_is_counted_once() -> None:
    replicas = balance(load(4, boot="x"), load(4, boot="x"), load(1, boot="y"))
    assert set(order(replicas).addresses) == {"a", "c"}
    assert replicas.room(lambda _: True) == 6 + 9
    assert set(order(replicas, connected="bc").addresses) == {"b", "c"}


def test_who_is_no_longer_of_the_layer_is_not_asked() -> None:
    replicas = balance(load(0), load(5))
    replicas.resolved(("b", "c"))
    assert set(order(replicas).addresses) == {"b", "c"}
    for forgotten in (replicas.asked, replicas.took, replicas.left, replicas.silent):
        forgotten("a")
    assert replicas.addresses == ("b", "c")


LOADS = st.none() | st.builds(
    load,
    st.integers(0, 12),
    st.integers(1, 10),
    accepting=st.booleans(),
    boot=st.sampled_from("xyz"),
)


@given(st.lists(LOADS, max_size=3), st.sets(st.sampled_from(ALL)), st.integers(0, 99))
def test_nobody_is_asked_who_said_that_it_has_no_room(
    loads: list[Load | None], connected: set[str], seed: int
) -> None:
    replicas = balance(*loads)
    replicas._draw = Random(seed).randrange
    found = order(replicas, "".join(connected))
    said = dict(zip(ALL, loads, strict=False))
    assert len(set(found.addresses)) == len(found.addresses)
    for address in found.addresses:
        of = said[address]
        assert address in connected
        assert of is None or (of.accepting and of.running < of.capacity)
    boots = [of.boot for address in found.addresses if (of := said[address]) is not None]
    assert len(set(boots)) == len(boots)
