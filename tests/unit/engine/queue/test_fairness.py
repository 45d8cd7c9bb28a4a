"""Tenants take turns, and in a tenant its users, over any number of engines that share the tickets."""

from __future__ import annotations

from collections import Counter
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from factorychain._core.ids import Principal
from factorychain_engine.queue.fairness import Patience, Waiting, fair_order


class Line:
    """The bucket, with as much of the users' queues as matters."""

    def __init__(self) -> None:
        self.runs: Counter[Principal] = Counter()
        self.tickets: dict[Principal, int] = {}
        self.served: dict[str, int] = {}
        self._sequence = count(1)

    def join(self, tenant: str, user: str, runs: int = 1) -> Principal:
        principal = Principal(tenant, user)
        self.runs[principal] += runs
        self.tickets.setdefault(principal, next(self._sequence))
        return principal

    def order(self) -> list[Principal]:
        waiting = [Waiting(each, "engine", ticket) for each, ticket in self.tickets.items()]
        return [each.principal for each in fair_order(waiting, self.served)]

    def serve(self) -> Principal:
        """A place is free: whoever's turn it is gets it, and goes behind the others."""
        principal = self.order()[0]
        self.runs[principal] -= 1
        self.served[principal.tenant] = next(self._sequence)
        self.tickets[principal] = next(self._sequence)
        if not self.runs[principal]:
            del self.tickets[principal]
        return principal


def test_a_tenant_with_a_thousand_waiting_delays_nobody_by_more_than_one_run() -> None:
    line = Line()
    for user in range(1000):
        line.join("big", f"u{user}")
    assert [line.serve().tenant for _ in range(3)] == ["big"] * 3
    late = line.join("small", "late")
    assert late in [line.serve() for _ in range(2)]


def test_a_user_with_a_thousand_waiting_delays_nobody_of_the_tenant_by_more_than_one_run() -> None:
    line = Line()
    line.join("acme", "many", runs=1000)
    for _ in range(5):
        line.serve()
    late = line.join("acme", "late")
    assert late in [line.serve() for _ in range(2)]


def test_tenants_share_equally_however_many_users_they_have() -> None:
    line = Line()
    for user in range(30):
        line.join("big", f"u{user}", runs=10)
    line.join("small", "only", runs=100)
    served = Counter(line.serve().tenant for _ in range(60))
    assert served == {"big": 30, "small": 30}


def test_users_of_a_tenant_share_its_turns_equally() -> None:
    line = Line()
    line.join("acme", "many", runs=100)
    line.join("acme", "few", runs=20)
    line.join("other", "one", runs=100)
    served = Counter(line.serve() for _ in range(40))
    assert served[Principal("acme", "many")] == served[Principal("acme", "few")] == 10


def test_the_same_tickets_give_the_same_order_whoever_sorts_them() -> None:
    a, b = Principal("acme", "a"), Principal("acme", "b")
    c = Principal("other", "c")
    waiting = [Waiting(a, "e1", 5), Waiting(b, "e2", 3), Waiting(c, "e1", 9)]
    assert fair_order(waiting, {}) == fair_order(waiting[::-1], {})
    assert [each.principal for each in fair_order(waiting, {})] == [b, c, a]
    assert [each.principal for each in fair_order(waiting, {"acme": 12})] == [c, b, a]


JOINS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("uvw"), st.integers(1, 20)))


@given(JOINS, st.integers(0, 30), JOINS)
def test_a_first_run_waits_for_one_of_each_other_tenant_and_user_at_most(
    before: list[tuple[str, str, int]], served: int, after: list[tuple[str, str, int]]
) -> None:
    line = Line()
    for tenant, user, runs in before:
        line.join(tenant, user, runs)
    for _ in range(min(served, line.runs.total())):
        line.serve()
    late = line.join("late", "late")
    for tenant, user, runs in after:
        line.join(tenant, user, runs)
    tenants = {each.tenant for each in line.tickets} - {"late"}
    ahead = []
    while (principal := line.serve()) != late:
        ahead.append(principal.tenant)
    assert len(ahead) == len(set(ahead)) <= len(tenants)


def _waiting(user: str, engine: str, ticket: int) -> Waiting:
    return Waiting(Principal("acme", user), engine, ticket)


def test_as_many_are_due_as_there_is_room_for() -> None:
    order = [_waiting("a", "e1", 1), _waiting("b", "e2", 2), _waiting("c", "e1", 3)]
    patience = Patience(3.0)
    assert patience.due(order, 0, 0.0) == ()
    assert patience.due(order, 2, 0.0) == tuple(order[:2])


def test_an_engine_that_does_nothing_with_its_turn_holds_up_the_others_only_for_a_moment() -> None:
    dead, mine = _waiting("a", "gone", 1), _waiting("b", "e1", 2)
    patience = Patience(3.0)
    assert patience.due([dead, mine], 1, 10.0) == (dead,)
    assert patience.due([dead, mine], 1, 12.9) == (dead,)
    assert patience.due([dead, mine], 1, 13.0) == (dead, mine)
    # While there is no room nobody's turn passes by.
    assert patience.due([dead, mine], 0, 13.5) == ()
    assert patience.due([dead, mine], 1, 14.0) == (dead,)
