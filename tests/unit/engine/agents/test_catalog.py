"""The list of agents: fresh when it matters, never a reason to refuse when it is old."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from factorychain.errors import AgentDependencyMissing, AgentNotFound, ChainDegraded
from factorychain.types.v1.run_pb2 import AgentInfo
from factorychain_engine.agents import catalog as module
from factorychain_engine.agents.catalog import AgentCatalog


class Layer:
    """The agents layer."""

    def __init__(self, *agents: AgentInfo) -> None:
        self.agents = list(agents)
        self.is_away = False
        self.asked = 0

    async def list_agents(self) -> Sequence[AgentInfo]:
        self.asked += 1
        if self.is_away:
            raise ChainDegraded("agents")
        return [AgentInfo.FromString(each.SerializeToString()) for each in self.agents]


def agent(name: str, *missing: str) -> AgentInfo:
    return AgentInfo(name=name, available=not missing, missing=missing)


@pytest.fixture(autouse=True)
def _always_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_BETWEEN_S", 0.0)


async def test_an_agent_is_found_by_name_and_the_default_by_none() -> None:
    layer = Layer(agent("b"), agent("a"))
    catalog = AgentCatalog(layer.list_agents, "a")
    assert (await catalog.resolve("b")).name == "b"
    assert (await catalog.resolve("")).name == "a"
    assert [each.name for each in await catalog.agents()] == ["a", "b"]
    assert [each.is_default for each in await catalog.agents()] == [True, False]


async def test_a_default_that_does_not_exist_is_the_first_agent() -> None:
    layer = Layer(agent("b"), agent("a"))
    catalog = AgentCatalog(layer.list_agents, "researcher")
    assert (await catalog.resolve("")).name == "b"


async def test_an_agent_that_was_just_added_is_found() -> None:
    layer = Layer(agent("a"))
    catalog = AgentCatalog(layer.list_agents, "a")
    await catalog.resolve("a")
    layer.agents.append(agent("new"))
    assert (await catalog.resolve("new")).name == "new"


async def test_an_unknown_agent_is_refused_with_those_there_are() -> None:
    layer = Layer(agent("a"))
    catalog = AgentCatalog(layer.list_agents, "a")
    with pytest.raises(AgentNotFound, match="there are: a"):
        await catalog.resolve("x")


async def test_an_agent_that_misses_something_is_refused_until_it_does_not() -> None:
    layer = Layer(agent("a", "Library"))
    catalog = AgentCatalog(layer.list_agents, "a")
    with pytest.raises(AgentDependencyMissing) as refused:
        await catalog.resolve("a")
    assert refused.value.names == ("Library",)
    layer.agents = [agent("a")]
    assert (await catalog.resolve("a")).available


async def test_a_list_outlives_an_outage_of_agents() -> None:
    layer = Layer(agent("a"))
    catalog = AgentCatalog(layer.list_agents, "a")
    await catalog.resolve("a")
    layer.is_away = True
    await catalog.refresh()
    assert (await catalog.resolve("a")).name == "a"


async def test_without_any_list_the_chain_is_degraded() -> None:
    layer = Layer(agent("a"))
    layer.is_away = True
    with pytest.raises(ChainDegraded):
        await AgentCatalog(layer.list_agents, "a").resolve("a")


async def test_a_known_agent_costs_no_call() -> None:
    layer = Layer(agent("a"))
    catalog = AgentCatalog(layer.list_agents, "a")
    for _ in range(5):
        await catalog.resolve("a")
    assert layer.asked == 1


async def test_agents_that_have_not_come_up_yet_are_waited_for_without_a_warning() -> None:
    layer = Layer(agent("a"))
    layer.is_away = True
    catalog = AgentCatalog(layer.list_agents, "a")
    with capture_logs() as lines:
        for _ in range(module.TRIES_AT_START - 1):
            with pytest.raises(ChainDegraded):
                await catalog.refresh()
        assert {each["log_level"] for each in lines} == {"debug"}
        with pytest.raises(ChainDegraded):
            await catalog.refresh()
        assert lines[-1]["log_level"] == "warning"


async def test_agents_that_went_away_are_worth_a_warning_at_once() -> None:
    layer = Layer(agent("a"))
    catalog = AgentCatalog(layer.list_agents, "a")
    await catalog.refresh()
    layer.is_away = True
    with capture_logs() as lines:
        await catalog.refresh()
    assert [each["log_level"] for each in lines] == ["warning"]
