"""Instruments: counts that hold, labels that cannot grow without bound."""

from __future__ import annotations

import pytest

from factorychain._core import metrics
from factorychain._core.metrics import MAX_SERIES, Registry


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_a_counter_counts_each_set_of_attributes_apart(registry: Registry) -> None:
    made = registry.counter("counter", "things", "Things", "1")
    made.add()
    made.add(2, {"b": 1, "a": "x"})
    made.add(1, {"a": "x", "b": 1})
    assert made.value() == 1
    assert made.value({"a": "x", "b": 1}) == 3
    assert made.value({"a": "y"}) == 0
    assert made.sum() == 4


def test_asking_twice_for_a_name_gives_the_same_instrument(registry: Registry) -> None:
    first = registry.histogram("h", "", "s", (1.0,))
    assert registry.histogram("h", "", "s", (1.0,)) is first
    with pytest.raises(ValueError, match="h exists and is a histogram"):
        registry.counter("counter", "h", "", "1")
    registry.counter("counter", "c", "", "1")
    with pytest.raises(ValueError, match="c exists and is a counter"):
        registry.counter("up_down_counter", "c", "", "1")


def test_labels_beyond_the_bound_are_counted_under_one_series(registry: Registry) -> None:
    made = registry.counter("counter", "wild", "", "1")
    for number in range(MAX_SERIES + 500):
        made.add(1, {"user": f"u{number}"})
    assert made.sum() == MAX_SERIES + 500
    assert len(list(made.series())) == MAX_SERIES + 1
    assert made.value(dict(metrics.OVERFLOW)) == 500


def test_a_histogram_knows_count_sum_and_quantiles(registry: Registry) -> None:
    made = registry.histogram("h", "", "s", (0.001, 0.01, 0.1)).labels()
    assert made.quantile(0.5) == 0
    for value in (0.0005, 0.0005, 0.002, 0.5):
        made.record(value)
    assert made.count == 4
    assert made.total == pytest.approx(0.503)
    assert made.buckets == [2, 1, 0, 1]
    assert made.quantile(0.5) == 0.001
    assert made.quantile(0.99) == 0.5


def test_a_watcher_sees_instruments_made_before_and_after(registry: Registry) -> None:
    before = registry.counter("counter", "before", "", "1")
    seen: list[object] = []
    registry.watch(seen.append)
    after = registry.histogram("after", "", "s", (1.0,))
    assert seen == [before, after]


def test_values_are_handed_on_with_their_attributes_while_someone_takes_them(
    registry: Registry,
) -> None:
    made = registry.histogram("h", "", "s", (1.0,))
    made.record(1, {"a": 1})
    taken: list[tuple[float, object]] = []
    made.forward_to(lambda value, series: taken.append((value, series)))
    made.record(2, {"a": 1})
    made.record(3)
    made.forward_to(None)
    made.record(4)
    assert taken == [(2, (("a", 1),)), (3, ())]


def test_creation_is_measured_by_layer() -> None:
    series = metrics._creation.labels({"layer": "agent_instance"})
    before = series.count
    metrics.record_creation("agent_instance", 0.002)
    assert series.count == before + 1
