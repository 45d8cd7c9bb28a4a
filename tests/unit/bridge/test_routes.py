"""Which runs write here: one route a run and scope, answered only to its owner."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from factorychain._core.execution_context import Scope, UserExecutionContext
from factorychain.errors import AttemptSuperseded
from factorychain_bridge.routes import Routes
from tests.unit.bridge.samples import ANA, BEN, OTHER_RUN, RUN, THREAD, context


@dataclass(eq=False)
class Writer:
    context: UserExecutionContext


def test_a_run_is_found_by_its_owner_and_by_nobody_else() -> None:
    routes: Routes[Writer] = Routes()
    routes.open(Writer(context()))
    assert routes.thread_of(ANA, RUN) == THREAD
    assert routes.thread_of(BEN, RUN) is None
    assert routes.thread_of(ANA, OTHER_RUN) is None


def test_a_new_opening_replaces_the_one_before_it() -> None:
    routes: Routes[Writer] = Routes()
    first, second = Writer(context()), Writer(context())
    assert routes.open(first) is None
    assert routes.open(second) is first
    assert not routes.close(first)
    assert routes.all() == [second]
    assert routes.close(second)
    assert len(routes) == 0


def test_an_earlier_attempt_does_not_replace_a_later_one() -> None:
    routes: Routes[Writer] = Routes()
    later = Writer(context(attempt=2))
    routes.open(later)
    with pytest.raises(AttemptSuperseded):
        routes.open(Writer(context(attempt=1)))
    assert routes.all() == [later]


def test_settling_a_run_leaves_its_own_route_alone() -> None:
    routes: Routes[Writer] = Routes()
    own, settling = Writer(context()), Writer(context(scope=Scope.LIFECYCLE))
    routes.open(own)
    assert routes.open(settling) is None
    routes.close(own)
    assert routes.thread_of(ANA, RUN) == THREAD
