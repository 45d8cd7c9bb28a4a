"""Which agents there are, as the agents layer said last.

Invariant: a start is refused for its agent only after the agents layer was asked anew (at most once
a second), so that an agent which was just added is found; and never because the list is old.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from factorychain._core.component import TaskSet
from factorychain._core.logging import get_logger
from factorychain.errors import (
    AgentDependencyMissing,
    AgentNotFound,
    ChainDegraded,
    FactoryChainError,
)
from factorychain.types.v1.run_pb2 import AgentInfo

log = get_logger(__name__)

REFRESH_S: Final = 10.0
LEAST_BETWEEN_S: Final = 1.0
TRIES_AT_START: Final = 8
"""Layers start in any order: agents that do not answer after so many tries are worth a warning."""

ListAgents = Callable[[], Awaitable[Sequence[AgentInfo]]]


class AgentCatalog:
    """The agents; a component that keeps the list fresh."""

    name = "agent_catalog"

    def __init__(self, list_agents: ListAgents, default_agent: str) -> None:
        self._list_agents = list_agents
        self._default_agent = default_agent
        self._agents: dict[str, AgentInfo] = {}
        self._asked_at_s = float("-inf")
        self._misses = 0
        self._asking: asyncio.Task[None] | None = None
        self._tasks = TaskSet(self.name)

    @property
    def healthy(self) -> bool:
        """Always, while its loop lives: starts say for themselves when agents are away."""
        return self._tasks.healthy

    async def start(self) -> None:
        _ = self._tasks.spawn(self._keep_fresh(), "refresh")

    async def stop(self) -> None:
        await self._tasks.close()

    async def agents(self) -> list[AgentInfo]:
        """Every agent, the default one first.

        Raises:
            ChainDegraded: the agents layer was never reached.
        """
        if not self._agents:
            await self.refresh()
        default = self._default()
        return sorted(self._agents.values(), key=lambda each: each.name != default)

    async def resolve(self, name: str) -> AgentInfo:
        """The agent to start; the default one for an empty name.

        Raises:
            AgentNotFound: there is none of this name.
            AgentDependencyMissing: it cannot be started now.
            ChainDegraded: the agents layer was never reached.
        """
        found = self._agents.get(name or self._default())
        if found is None or not found.available:
            await self.refresh()
            found = self._agents.get(name or self._default())
        if found is None:
            raise AgentNotFound(name or self._default_agent, sorted(self._agents))
        if not found.available:
            raise AgentDependencyMissing(found.missing)
        return found

    async def refresh(self) -> None:
        """Ask the agents layer, together with whoever asks at the same time.

        Raises:
            ChainDegraded: it does not answer and never has.
        """
        loop = asyncio.get_running_loop()
        if self._agents and loop.time() - self._asked_at_s < LEAST_BETWEEN_S:
            return
        if self._asking is None or self._asking.done():
            self._asking = self._tasks.spawn(self._ask(), "ask")
        await asyncio.shield(self._asking)
        if not self._agents:
            raise ChainDegraded("agents")

    async def _ask(self) -> None:
        self._asked_at_s = asyncio.get_running_loop().time()
        try:
            listed = await self._list_agents()
        except FactoryChainError as error:
            self._missed(error)
            return
        self._misses = 0
        default = self._default_of(listed)
        for each in listed:
            each.is_default = each.name == default
        self._agents = {each.name: each for each in listed}

    def _missed(self, error: FactoryChainError) -> None:
        self._misses += 1
        # Once at a glance, then at every doubling: an outage may last.
        if self._misses & (self._misses - 1) == 0:
            expected = not self._agents and self._misses < TRIES_AT_START
            say = log.debug if expected else log.warning
            say("the agents could not be listed", reason=error.reason)

    async def _keep_fresh(self) -> None:
        while True:
            await self._ask()
            await asyncio.sleep(REFRESH_S if self._agents else LEAST_BETWEEN_S)

    def _default(self) -> str:
        return self._default_of(list(self._agents.values()))

    def _default_of(self, listed: Sequence[AgentInfo]) -> str:
        """The operator's choice; where it does not exist, the first agent that was registered."""
        names = [each.name for each in listed]
        if self._default_agent in names or not names:
            return self._default_agent
        return names[0]
