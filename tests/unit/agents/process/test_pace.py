"""How fast one run may say something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factorychain_agents.process.pace import Pace


def test_a_burst_is_free_and_then_each_event_waits_for_its_turn() -> None:
    pace = Pace(per_s=10, burst=5)
    assert [pace.take(1.0) for _ in range(5)] == [0.0] * 5
    assert [pace.take(1.0) for _ in range(3)] == pytest.approx([0.1, 0.2, 0.3])


def test_a_pause_earns_events_but_no_more_than_a_burst() -> None:
    pace = Pace(per_s=10, burst=5)
    for _ in range(5):
        pace.take(1.0)
    assert [pace.take(1000.0) for _ in range(6)] == pytest.approx([0, 0, 0, 0, 0, 0.1])


@given(gaps=st.lists(st.floats(0, 0.5), min_size=1, max_size=200))
def test_over_any_time_no_more_is_said_than_the_rate_allows(gaps: list[float]) -> None:
    pace = Pace(per_s=10, burst=5)
    now = 1.0
    for said, gap in enumerate(gaps, 1):
        now += gap + pace.take(now + gap)
        assert said <= 5 + 10 * (now - 1.0) + 1e-6
