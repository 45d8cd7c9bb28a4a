"""The agents of this process: imported, understood, and what they share made once.

Invariant: what is shared is built on a loop that is never run to its end, so that nothing of it is
finalised before the runs that use it; every agent that cannot be run in a fork of this process is named,
with the reason.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import time
import traceback
import types
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Final

from factorychain._instance.application import ApplicationScope, Startable
from factorychain._instance.definition import AgentDefinition, define
from factorychain._process.control import AgentSource, Prepared, Setup
from factorychain.adapters import agent_class
from factorychain.errors import AgentDependencyMissing, AgentNotFound, SubAgentRefused

_BARRED: Final = {
    "grpc._cython.cygrpc": "it imports grpc, whose runtime does not survive a fork",
    "opentelemetry.sdk.trace.export": "it imports OpenTelemetry's SDK, whose exporters do not survive a fork",
}


_ENDING_S: Final = 1.0


class Agents:
    """Everything that a run process finds made."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        """Of what is shared; never closed."""
        self.scope = ApplicationScope()
        self._missing: dict[str, tuple[str, ...]] = {}
        self._unforkable: dict[str, str] = {}
        self._later: dict[str, AgentSource] = {}
        self._elsewhere: Mapping[str, str] = {}

    @property
    def prepared(self) -> Prepared:
        return Prepared({**self._missing, **self.scope.missing}, self._unforkable)

    @property
    def forkable(self) -> bool:
        return not self._unforkable

    def find(self, name: str) -> Startable:
        """An agent that can be run.

        Raises:
            KeyError: there is none of this name.
        """
        return self.scope.agents[name]

    async def find_inside(self, name: str) -> Startable:
        """An agent that a run of another one asks for.

        Raises:
            AgentNotFound: there is none of this name.
            AgentDependencyMissing: it cannot be imported.
            SubAgentRefused: it cannot be run here.
        """
        source = self._later.pop(name, None)
        if source is not None:
            module, definitions = self._imported(source.module, [source])
            await self.scope.add(module, definitions)
        if name in self._missing:
            raise AgentDependencyMissing(self._missing[name])
        if name in self._elsewhere:
            raise SubAgentRefused(name, self._elsewhere[name])
        if name not in self.scope.agents:
            raise AgentNotFound(name, sorted({*self.scope.agents, *self._later}))
        return self.scope.agents[name]

    def load(self, setup: Setup) -> None:
        """Import and make everything. What fails is in `missing`, and stops nobody else's agent."""
        self._later = {each.name: each for each in setup.later}
        self._elsewhere = setup.elsewhere
        sys.path[:] = setup.path
        os.environ.update(setup.environment)
        modules: dict[str, list[AgentSource]] = {}
        for each in setup.agents:
            modules.setdefault(each.module, []).append(each)
        for name, sources in modules.items():
            self._load_module(name, sources)

    def rest(self) -> None:
        """The loop does not run again before the end: its threads, of `asyncio.to_thread`, can go."""
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        left = Threads.after_those_that_end().names
        if left and not self._unforkable:
            why = f"threads are running whose origin is not known: {', '.join(left)}"
            self._unforkable = dict.fromkeys(self.scope.agents, why)

    def close(self) -> None:
        """Close what is shared. What fails then is in the log."""
        try:
            self.loop.run_until_complete(self.scope.close())
        except Exception as error:  # noqa: BLE001 - an author's code, at the very end
            sys.stderr.write("".join(traceback.format_exception(error)))

    def _load_module(self, name: str, sources: Sequence[AgentSource]) -> None:
        before, barred = Threads.now(), _barred()
        module, definitions = self._imported(name, sources)
        reasons = [*before.started_since(), *(_BARRED[each] for each in _barred() - barred)]
        self.loop.run_until_complete(self.scope.add(module, definitions))
        for each in definitions:
            problems = [*reasons, *self.find(each.name).fork_problems]
            if problems:
                self._unforkable[each.name] = "; ".join(problems)

    def _imported(
        self, name: str, sources: Sequence[AgentSource]
    ) -> tuple[types.ModuleType | None, list[AgentDefinition]]:
        """A module and its agents; none if it cannot be imported, which is in `missing` then."""
        try:
            module = importlib.import_module(name)
            return module, [_definition(module, each) for each in sources]
        except Exception as error:  # noqa: BLE001 - an author's code: its text is for the log
            sys.stderr.write("".join(traceback.format_exception(error)))
            problem = (f"{name} cannot be imported ({type(error).__name__}); see the log",)
            self._missing |= dict.fromkeys([each.name for each in sources], problem)
            return None, []


class Threads:
    """The threads of this process, native ones too, which `threading` does not see."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    @classmethod
    def now(cls) -> Threads:
        tasks = Path("/proc/self/task").iterdir()
        return cls(sorted(_thread_name(each) for each in tasks if each.name != str(os.getpid())))

    @classmethod
    def after_those_that_end(cls) -> Threads:
        """Those that stay: one that was joined is still there for a moment."""
        until_s = time.monotonic() + _ENDING_S
        now = cls.now()
        while now.names and time.monotonic() < until_s:
            time.sleep(0.001)
            now = cls.now()
        return now

    def started_since(self) -> list[str]:
        """What has changed, in words; nothing if nothing has."""
        now = Threads.now()
        count = len(now.names) - len(self.names)
        return (
            [f"importing it started {count} threads ({', '.join(now.names)})"] if count > 0 else []
        )


def _thread_name(task: Path) -> str:
    try:
        return (task / "comm").read_text().strip()
    except OSError:  # it has ended meanwhile
        return ""


def _barred() -> set[str]:
    return {each for each in _BARRED if each in sys.modules}


def _definition(module: types.ModuleType, source: AgentSource) -> AgentDefinition:
    found: object = attrgetter(source.qualname)(module)
    cls = agent_class(found, source.module, source.qualname)
    if cls is None:
        raise TypeError(f"{source.module}.{source.qualname} is no class that inherits Agent")
    return define(cls)
