"""How many idle processes to keep."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from factorychain_agents.process.demand import Demand


def test_without_any_demand_the_least_are_kept() -> None:
    assert Demand(2, 10).idle_wanted(100.0) == 2


def test_as_many_are_kept_as_the_latest_burst_took_at_once() -> None:
    demand = Demand(1, 100)
    for index in range(20):
        demand.started(10.0 + index / 100)
    assert demand.idle_wanted(10.3) == 20


def test_starts_that_are_far_apart_are_no_burst() -> None:
    demand = Demand(1, 100)
    for index in range(20):
        demand.started(10.0 + 2 * index)
    assert demand.idle_wanted(50.0) == 1


def test_a_burst_is_forgotten_by_half_in_each_half_life() -> None:
    demand = Demand(0, 100, half_life_s=30)
    for _ in range(40):
        demand.started(10.0)
    assert [demand.idle_wanted(10.0 + after) for after in (0, 30, 60, 90)] == [40, 20, 10, 5]
    assert demand.idle_wanted(10_000.0) == 0


def test_a_smaller_burst_does_not_make_a_larger_one_forgotten() -> None:
    demand = Demand(0, 100, half_life_s=30)
    for _ in range(40):
        demand.started(10.0)
    for _ in range(5):
        demand.started(40.0)
    assert demand.idle_wanted(40.0) == 20


@given(
    starts=st.lists(st.floats(0, 100), max_size=200),
    least=st.integers(0, 5),
    more=st.integers(0, 20),
)
def test_the_operators_bounds_hold(starts: list[float], least: int, more: int) -> None:
    demand = Demand(least, least + more)
    for at in sorted(starts):
        demand.started(at)
        assert least <= demand.idle_wanted(at) <= least + more
