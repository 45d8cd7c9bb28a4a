"""The executor that each agent wants: a process for each run, or a task.

Invariant: an agent always runs where its class or else the operator says, never in the other one because
that happens to be free.
"""

from __future__ import annotations

from factorychain._instance.host import RunHost
from factorychain._instance.needs import Isolation
from factorychain._instance.spec import RunSpec
from factorychain_agents.executor import Executor, RunHandle
from factorychain_agents.registry import AgentRegistry


class Executors:
    """An `Executor`: the one of each agent's isolation."""

    name = "executors"

    def __init__(self, registry: AgentRegistry, process: Executor, task: Executor) -> None:
        self._registry = registry
        self._by_isolation: dict[Isolation, Executor] = {"process": process, "task": task}

    @property
    def healthy(self) -> bool:
        return all(each.healthy for each in self._by_isolation.values())

    @property
    def running(self) -> int:
        return sum(each.running for each in self._by_isolation.values())

    async def start(self) -> None:
        for each in self._by_isolation.values():
            await each.start()

    async def stop(self) -> None:
        for each in self._by_isolation.values():
            await each.stop()

    async def start_run(self, spec: RunSpec, host: RunHost) -> RunHandle:
        isolation = self._registry.find(spec.agent).isolation
        return await self._by_isolation[isolation].start_run(spec, host)
