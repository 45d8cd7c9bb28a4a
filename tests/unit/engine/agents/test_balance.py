"""The next run goes to a replica that has room, rather to the one that has less to do."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from factorychain_engine.agents.balance import UNKNOWN_ROOM_IN_S, Balance, Load, Order

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


def room(of: Balance, connected: str = "abc") -> int | None:
    return of.room(lambda address: address in connected)


def test_one_has_room_one_is_stopping_and_one_is_full() -> None:
    replicas = balance(load(9), load(0, accepting=False), load(10))
    assert order(replicas) == Order(("a",), None)
    replicas.asked("a")
    assert room(replicas) == 0
    assert order(replicas) == Order((), UNKNOWN_ROOM_IN_S)  # it did not say when there is room
    assert order(replicas, connected="c") == Order((), 4.0)
    replicas.answered("a", took=True)
    assert order(replicas) == Order((), UNKNOWN_ROOM_IN_S)
    replicas.left("a")
    assert order(replicas) == Order(("a",), None)


def test_runs_that_came_while_a_replica_counted_are_counted_once() -> None:
    replicas = balance(load(0, 10))
    for _ in range(6):
        replicas.asked("a")
    replicas.heard("a", load(6, 10))  # it has them all; its answers are on their way
    assert room(replicas) == 4
    for _ in range(5):
        replicas.answered("a", took=True)
    replicas.asked("a")
    assert room(replicas) == 3
    for took in (False, True):  # the first that is answered may have been any of both
        replicas.answered("a", took=took)
    assert room(replicas) == 3


def test_others_on_their_way_do_not_fill_one_that_has_refused_for_lack_of_room() -> None:
    replicas = balance(load(0, 2))
    for _ in range(3):
        replicas.asked("a")
    replicas.answered("a", took=False)
    replicas.refused_full("a", None)
    for _ in range(2):
        replicas.answered("a", took=True)
    assert room(replicas) == 0
    replicas.left("a")
    assert room(replicas) == 1


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
        replicas.answered("a", took=True)
    assert order(replicas).addresses == ("b",)
    replicas.heard("a", load(1, 2))
    assert set(order(replicas).addresses) == {"a", "b"}
    assert room(replicas) == 1 + 9


def test_one_of_which_nothing_is_known_is_asked_and_one_that_is_away_is_not() -> None:
    replicas = balance(None, load(10))
    assert order(replicas) == Order(("a",), None)
    assert room(replicas) is None
    assert order(replicas, connected="b") == Order((), 4.0)
    assert order(replicas, connected="") == Order((), None)


def test_the_room_of_one_that_does_not_answer_is_no_room_while_another_takes_runs() -> None:
    replicas = balance(load(0), load(9))
    replicas.silent("a")  # it may hang: nothing is known of what it was to have free
    assert order(replicas) == Order(("b",), None)
    assert room(replicas) == 1
    replicas.heard("b", load(10))
    assert order(replicas) == Order((), 4.0)
    assert room(replicas) == 0
    replicas.heard("a", load(3))
    assert order(replicas) == Order(("a",), None)
    assert room(replicas) == 7


def test_one_that_does_not_answer_is_asked_when_no_other_takes_runs() -> None:
    replicas = balance(load(3), load(0, accepting=False), load(10))
    for silent in "ac":
        replicas.silent(silent)
    assert order(replicas) == Order(("a",), None), "it may just be slow"
    assert room(replicas) is None
    assert order(replicas, connected="bc") == Order((), 4.0), "full, when it last said something"
    assert room(replicas, connected="bc") == 0


def test_one_that_took_no_runs_and_then_did_not_answer_may_take_some_by_now() -> None:
    replicas = balance(load(0, accepting=False))
    assert order(replicas) == Order((), None)
    replicas.silent("a")
    assert order(replicas) == Order(("a",), None)


def test_a_refusal_counts_until_the_replica_says_otherwise() -> None:
    replicas = balance(load(0), load(0), None)
    replicas.refused_full("a", 7.0)
    replicas.refused_all("b")
    replicas.refused_full("c", None)
    assert order(replicas) == Order((), UNKNOWN_ROOM_IN_S)
    replicas.unmeasured("b")  # another process may be there
    assert order(replicas) == Order(("b",), None)


def test_one_of_which_nothing_is_known_that_takes_no_runs_is_not_asked_at_once_again() -> None:
    replicas = balance(None)
    assert room(replicas) is None
    replicas.refused_all("a")
    assert (order(replicas), room(replicas)) == (Order((), None), 0)
    replicas.heard("a", load(0))
    assert (order(replicas), room(replicas)) == (Order(("a",), None), 10)


def test_one_process_under_two_addresses_is_counted_once() -> None:
    replicas = balance(load(4, boot="x"), load(4, boot="x"), load(1, boot="y"))
    assert set(order(replicas).addresses) == {"a", "c"}
    assert room(replicas) == 6 + 9
    assert set(order(replicas, connected="bc").addresses) == {"b", "c"}


def test_who_is_no_longer_of_the_layer_is_not_asked() -> None:
    replicas = balance(load(0), load(5))
    replicas.resolved(("b", "c"))
    assert set(order(replicas).addresses) == {"b", "c"}
    for forgotten in (replicas.asked, replicas.left, replicas.silent, replicas.refused_all):
        forgotten("a")
    replicas.answered("a", took=True)
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


@given(st.integers(1, 4), st.lists(st.sampled_from(["ask", "come", "answer", "leave", "hear"])))
def test_what_is_counted_twice_never_takes_room_away(capacity: int, happens: list[str]) -> None:
    """However hearing, asking and answering meet, there is no less room than there is without those
    that are on their way.
    """
    replicas = balance(load(0, capacity))
    sent = there = taken = 0  # on their way there, there and not answered for, known to be there
    for each in happens:
        if each == "ask":
            replicas.asked("a")
            sent += 1
        elif each == "come" and sent and there + taken < capacity:
            sent, there = sent - 1, there + 1
        elif each == "answer" and there:
            replicas.answered("a", took=True)
            there, taken = there - 1, taken + 1
        elif each == "answer" and sent:
            replicas.answered("a", took=False)
            sent -= 1
        elif each == "leave" and taken:
            replicas.left("a")
            taken -= 1
        elif each == "hear":
            replicas.heard("a", load(there + taken, capacity))
        assert (room(replicas) or 0) >= capacity - sent - there - taken
