"""What an instance is told of its run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from factorychain_agents.factory import report_every_s
from tests.token_samples import run_context


@pytest.mark.parametrize(
    ("limits", "every_s"), [({}, 5.0), ({"idle_s": 60}, 5.0), ({"idle_s": 2}, 0.5)]
)
def test_a_run_shows_that_it_lives_often_enough_for_the_engine(
    limits: dict[str, int], every_s: float
) -> None:
    ctx = replace(run_context(), limits=limits)
    assert report_every_s(ctx, 5.0) == every_s
