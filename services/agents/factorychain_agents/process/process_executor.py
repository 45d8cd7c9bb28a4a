"""Agents in processes of their own: an `Executor`.

Invariant: a process runs one run and ends; when this has stopped there is none left, nor anything that
they held.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import resource
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from factorychain._core.component import TaskSet
from factorychain._core.logging import get_logger
from factorychain._core.metrics import histogram, up_down_counter
from factorychain._instance import model_access
from factorychain._instance.definition import AgentDefinition
from factorychain._instance.host import RunHost
from factorychain._instance.spec import RunSpec
from factorychain._process.control import AgentSource, Setup
from factorychain._sandbox import InvalidConfinement, compose_environment
from factorychain_agents.executor import RunHandle
from factorychain_agents.process.demand import Demand
from factorychain_agents.process.directories import RunDirectories
from factorychain_agents.process.machine import OutOfMemory
from factorychain_agents.process.pool import Pool, Source
from factorychain_agents.process.printed import Show
from factorychain_agents.process.priority import Priorities
from factorychain_agents.process.process_run import ProcessRun, RunLimits
from factorychain_agents.process.profiles import SINGLE_THREADED, Allowed, Kind, importing, kind_of
from factorychain_agents.process.spawner import Spawner
from factorychain_agents.process.weights import Weights
from factorychain_agents.process.zygote_client import Zygote

log = get_logger(__name__)

_instances = up_down_counter(
    "factorychain.agents.processes", "Run processes with a run", "{process}"
)
_waited = histogram(
    "factorychain.agents.process.wait",
    "How long a run waited for its process; next to 0 if one was idle",
)

_TICK_S: Final = 1.0
_AS_A_TASK: Final = "isolation: its runs are tasks of the service, and this run has a process"
_PR_SET_CHILD_SUBREAPER: Final = 36
_libc: Final = ctypes.CDLL(None, use_errno=True)
# Read when what agents share is made; no run sees them.
_FOR_SHARED: Final = (
    "FACTORYCHAIN_DOCS_DIR",
    "FACTORYCHAIN_LLM_MODEL",
    "FACTORYCHAIN_ASSISTANT_INSTRUCTIONS_FILE",
    "FACTORYCHAIN_ASSISTANT_WINDOW_TOKENS",
    "FACTORYCHAIN_ASSISTANT_ANSWER_MAX_TOKENS",
    "FACTORYCHAIN_ASSISTANT_STEPS_MAX",
)


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """How processes are kept."""

    allowed: Allowed
    idle_min: int
    idle_max: int
    silent_s: float
    grace_s: float
    events_per_s: float
    events_burst: float
    busy_nice: int = 20
    """Niceness of runs that keep a processor busy."""
    gateway_url: str = ""
    """Of the model gateway, which every run may reach; empty if there is none."""


def allow_many_descriptors() -> None:
    """Each process takes two; a shell often starts with room for a thousand."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class ProcessExecutor:
    """Runs each instance in a process."""

    name = "process executor"

    def __init__(
        self,
        definitions: Sequence[AgentDefinition],
        options: ProcessOptions,
        show: Show,
        validated: Callable[[Mapping[str, tuple[str, ...]]], None],
        environment: Mapping[str, str] = os.environ,
        elsewhere: Collection[str] = (),
    ) -> None:
        """To be made in a running event loop.

        Args:
            definitions: the agents.
            options: how processes are kept.
            show: shows what runs print.
            validated: is told at the start what each agent misses.
            environment: the operator's.
            elsewhere: agents that run as tasks of the service.
        """
        self._missing: dict[str, tuple[str, ...]] = {}
        self._validated = validated
        self._definitions = tuple(definitions)
        self._options = options
        self.show = show
        """Shows what runs print."""
        self._environment = environment
        self._elsewhere = dict.fromkeys(elsewhere, _AS_A_TASK)
        self.directories = RunDirectories()
        self._numbers = itertools.count(1)
        self._kinds: dict[str, Kind] = {}
        self._pools: dict[tuple[int, str], Pool] = {}
        self._spawners: dict[str, Spawner] = {}
        self._running: set[ProcessRun] = set()
        self._machine = OutOfMemory()
        self._tasks = TaskSet(self.name)
        self.zygote: Zygote | None = None
        self._priorities: Priorities | None = None

    @property
    def healthy(self) -> bool:
        return self._tasks.healthy and (self.zygote is None or self.zygote.healthy)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def processes(self) -> list[int]:
        """Pids of those that have a run."""
        return [each.pid for each in self._running]

    @property
    def idle(self) -> int:
        """Processes that wait for a run."""
        return sum(each.idle for each in self._pools.values())

    @property
    def settled(self) -> bool:
        """Whether there is exactly what waits for runs: nothing ends, nothing is made."""
        return all(each.settled for each in self._pools.values())

    async def start(self) -> None:
        """Import the agents in a zygote, and make the first processes ready.

        Raises:
            ZygoteFailed: they could not be imported there.
        """
        if not self._definitions:
            return
        allow_many_descriptors()
        # Run processes are forked by others, who end: then they are this process's children.
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        await self.directories.start()
        self._choose_kinds()
        agents = [each.name for each in self._definitions]
        self.zygote = Zygote(self._setup(agents), self._zygote_environment())
        await self.zygote.start()
        self._widen_kinds(self.zygote.unforkable)
        self._note_missing(self.zygote.prepared.missing)
        self._validated(self._missing)
        for each in self._definitions:
            if not self._missing.get(each.name):
                self._pool(each.name).refill()
        _ = self._tasks.spawn(self._tick(), "tick")
        options = self._options
        self._priorities = Priorities.made(options.allowed.nice, options.busy_nice)
        _ = self._tasks.spawn(Weights(lambda: self.processes, self._priorities).keep(), "weights")

    async def stop(self) -> None:
        """End what is left; runs were ended by their owner."""
        await self._tasks.close()
        for spawner in self._spawners.values():
            spawner.stop()
        for pool in self._pools.values():
            await pool.stop()
        if self.zygote is not None:
            await self.zygote.stop()
        await self.directories.stop()
        if self._priorities is not None:
            await self._priorities.close()

    async def start_run(self, spec: RunSpec, host: RunHost) -> RunHandle:
        asked_at = asyncio.get_running_loop().time()
        process = await self._pool(spec.agent).acquire()
        _waited.record(asyncio.get_running_loop().time() - asked_at)
        options = self._options
        limits = RunLimits(
            self._kinds[spec.agent].cpu_s,
            options.silent_s,
            options.grace_s,
            options.events_per_s,
            options.events_burst,
        )
        run = ProcessRun(process, spec, host, limits, self.show, self._machine)
        self._running.add(run)
        _instances.add(1)
        process.on_gone(lambda: self._done(run))
        run.begin()
        return run

    def _done(self, run: ProcessRun) -> None:
        self._running.discard(run)
        _instances.add(-1)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._machine.tick()
            for each in self._pools.values():
                each.refill()

    # --- kinds ---

    def _choose_kinds(self) -> None:
        directories = self.directories
        private = (*self._options.allowed.private_paths, str(directories.own))
        allowed = replace(self._options.allowed, private_paths=private)
        for each in self._definitions:
            try:
                shared, gateway_url = str(directories.shared), self._options.gateway_url
                kind = kind_of(each.needs, allowed, shared, self._environment, gateway_url)
                self._kinds[each.name] = kind
            except InvalidConfinement as error:
                self._missing[each.name] = (str(error),)

    def _widen_kinds(self, unforkable: Iterable[str]) -> None:
        for name in self._kinds.keys() & set(unforkable):
            try:
                self._kinds[name] = importing(self._kinds[name])
            except InvalidConfinement as error:
                self._missing[name] = (str(error),)

    def _note_missing(self, found: Mapping[str, Sequence[str]]) -> None:
        for name, missing in found.items():
            self._missing[name] = (*self._missing.get(name, ()), *missing)

    def _pool(self, agent: str) -> Pool:
        source, confinement = self._source(agent), self._kinds[agent].confinement
        key = (id(source), confinement)
        if key not in self._pools:
            demand = Demand(self._options.idle_min, self._options.idle_max)
            self._pools[key] = Pool(
                source, confinement, self.directories, demand, self._numbers.__next__
            )
        return self._pools[key]

    def _source(self, agent: str) -> Source:
        assert self.zygote is not None, "start has made it"
        if agent not in self.zygote.unforkable:
            return self.zygote
        if agent not in self._spawners:
            self._spawners[agent] = Spawner(self._setup([agent]), self._zygote_environment())
        return self._spawners[agent]

    # --- the zygote ---

    def _setup(self, agents: Sequence[str]) -> Setup:
        chosen = [each for each in self._definitions if each.name in agents]
        others = [each for each in self._definitions if each.name not in agents]
        declared = {name for each in chosen for name in each.needs.env}
        seen = {
            name: self._environment[name]
            for name in (*sorted(declared), *_FOR_SHARED)
            if name in self._environment
        }
        return Setup(
            tuple(sys.path),
            seen,
            _sources(chosen),
            _sources(others),
            self._elsewhere,
        )

    def _zygote_environment(self) -> dict[str, str]:
        """What it is started with: nothing that one agent declares is there for the others."""
        common = compose_environment(self._environment, (), str(self.directories.shared))
        found = {"PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
        url = self._options.gateway_url
        led = model_access.environment(url) if url else {}
        return common | SINGLE_THREADED | found | led


def _sources(definitions: Iterable[AgentDefinition]) -> tuple[AgentSource, ...]:
    return tuple(
        AgentSource(each.name, each.cls.__module__, each.cls.__qualname__) for each in definitions
    )
