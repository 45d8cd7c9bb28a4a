"""The agents of this process: found in modules and entry points, validated at start-up.

Invariant: every agent that was named is listed. One that misses something is listed as unavailable with
the names of what is missing, and cannot be started.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
import types
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import orjson

from factorychain._core.logging import get_logger
from factorychain._core.settings import Misconfigured
from factorychain._instance.definition import AgentDefinition, BadAgent, define
from factorychain._instance.injection import Injection, Made
from factorychain._instance.needs import Isolation
from factorychain.adapters import Adapted, agent_class, install_hint, offered
from factorychain.agent import Agent
from factorychain.builtin.assistant import Assistant
from factorychain.builtin.researcher import Researcher
from factorychain.errors import AgentDependencyMissing, AgentNotFound
from factorychain.types.v1.run_pb2 import AgentInfo, ToolInfo

log = get_logger(__name__)

ENTRY_POINTS = "factorychain.agents"
BUILT_IN = (Researcher, Assistant)


class AgentsUnusable(Misconfigured):
    """Agents that the operator named cannot be loaded; the text says which and why."""


@dataclass(slots=True)
class Registered:
    """One agent of this process."""

    definition: AgentDefinition
    isolation: Isolation
    injection: Injection
    """Started only for agents that run in this process."""
    elsewhere: tuple[str, ...] = ()
    """What it misses in a process of its own."""

    @property
    def missing(self) -> tuple[str, ...]:
        return self.injection.missing.get(self.definition.name, ()) + self.elsewhere


class AgentRegistry:
    """A component: the agents, and what they share."""

    name = "agents"

    def __init__(
        self, definitions: Iterable[AgentDefinition], isolation: Isolation = "task"
    ) -> None:
        """`isolation` is that of agents whose class does not say."""
        found = [(each, each.needs.isolation or isolation) for each in definitions]
        groups: dict[tuple[str, Isolation], list[AgentDefinition]] = {}
        for each, own in found:
            groups.setdefault((each.cls.__module__, own), []).append(each)
        made: dict[Hashable, Made] = {}
        self._injections = {
            group: Injection(sys.modules.get(group[0]), each, made=made)
            for group, each in groups.items()
        }
        self._agents = {
            each.name: Registered(each, own, self._injections[each.cls.__module__, own])
            for each, own in found
        }

    @property
    def healthy(self) -> bool:
        return True

    async def start(self) -> None:
        """Validate every agent that runs here and make what they share."""
        for (_, isolation), injection in self._injections.items():
            if isolation == "task":
                await injection.start()
        for each in self._agents.values():
            if each.isolation == "task":
                _tell(each)

    async def stop(self) -> None:
        for injection in reversed(self._injections.values()):
            await injection.close()

    def find(self, name: str) -> Registered:
        """An agent that can be started.

        Raises:
            AgentNotFound: there is none of this name.
            AgentDependencyMissing: it cannot be started.
        """
        found = self._agents.get(name)
        if found is None:
            raise AgentNotFound(name, self._agents)
        if found.missing:
            raise AgentDependencyMissing(found.missing)
        return found

    def isolated(self, isolation: Isolation) -> list[AgentDefinition]:
        """The agents that run so."""
        return [each.definition for each in self._agents.values() if each.isolation == isolation]

    def validated(self, missing: Mapping[str, tuple[str, ...]]) -> None:
        """What agents miss in processes of their own was found out there."""
        for name, found in missing.items():
            self._agents[name].elsewhere = found
            _tell(self._agents[name])

    def infos(self) -> list[AgentInfo]:
        """All agents, as they are listed."""
        return [_info(each) for each in self._agents.values()]


def _tell(registered: Registered) -> None:
    name, missing = registered.definition.name, registered.missing
    if missing:
        # What comes along and is not set up is no trouble.
        say = log.info if registered.definition.cls in BUILT_IN else log.warning
        say("the agent is unavailable", agent=name, missing=list(missing))
    else:
        log.info("the agent is available", agent=name, isolation=registered.isolation)


def load(modules: Sequence[str]) -> list[AgentDefinition]:
    """The agents of `MODULE[:NAME]`s, of the entry points, and the built-in ones.

    Raises:
        AgentsUnusable: one that was named cannot be loaded, or two have the same name.
    """
    found: dict[str, AgentDefinition] = {}
    if modules and str(Path.cwd()) not in sys.path:
        # Services start with `-P`, which keeps the current folder out; agents are looked up there.
        sys.path.insert(0, str(Path.cwd()))
    for named in modules:
        for cls in _classes(named):
            _add(found, cls, named)
    for entry_point in metadata.entry_points(group=ENTRY_POINTS):
        installed = _of_entry_point(entry_point)
        if installed is not None:
            _add(found, installed, f"entry point {entry_point.name}")
    # Also where factorychain itself is not installed; a module's own "researcher" replaces it.
    for built_in in BUILT_IN:
        definition = define(built_in)
        found.setdefault(definition.name, definition)
    return list(found.values())


def _add(found: dict[str, AgentDefinition], cls: type[Agent], origin: str) -> None:
    try:
        definition = define(cls)
    except BadAgent as error:
        raise AgentsUnusable(f"{origin}: {error}") from error
    other = found.setdefault(definition.name, definition)
    if _same(other.cls, cls) or cls in BUILT_IN:
        return
    where = f"{other.cls.__module__}.{other.cls.__qualname__}"
    raise AgentsUnusable(f"{origin}: {where} is called {definition.name!r} too; rename one")


def _same(one: type[Agent], other: type[Agent]) -> bool:
    """Whether both are one agent; of an object, a class is made each time it is looked up."""
    if issubclass(one, Adapted) and issubclass(other, Adapted):
        return one.adapted is other.adapted
    return one is other


def _classes(named: str) -> list[type[Agent]]:
    module_name, _, name = named.partition(":")
    module = _import(module_name)
    if name:
        return [_agent_class(getattr(module, name, None), named, module_name, name)]
    found = [each for each in vars(module).values() if _is_own_agent(each, module)]
    found += _offered(module)
    if not found:
        raise AgentsUnusable(
            f"{named} has no agent: nothing in it is a class that inherits factorychain.Agent, or an "
            "object that an adapter serves, such as a compiled LangGraph graph"
        )
    return list(dict.fromkeys(found))


def _offered(module: types.ModuleType) -> list[type[Agent]]:
    try:
        return offered(module)
    except (TypeError, ImportError) as error:
        raise AgentsUnusable(f"{module.__name__}: {error}") from error


def _import(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name or (error.name and name.startswith(f"{error.name}.")):
            where = "the current folder, PYTHONPATH or what is installed"
            raise AgentsUnusable(f"there is no module {name!r} in {where}") from error
        hint = install_hint(error.name or "")
        told = f"{_told(error)}\n{hint}" if hint else _told(error)
        raise AgentsUnusable(f"{name} cannot be imported:\n{told}") from error
    except Exception as error:
        raise AgentsUnusable(f"{name} cannot be imported:\n{_told(error)}") from error


def _told(error: Exception) -> str:
    """The traceback from the author's own code on, without what led to it here."""
    frames = error.__traceback__
    while frames is not None and (
        frames.tb_frame.f_code.co_filename in (__file__, importlib.__file__)
        or frames.tb_frame.f_code.co_filename.startswith("<frozen importlib")
    ):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).rstrip()


def _agent_class(found: object, named: str, module: str, name: str) -> type[Agent]:
    if found is None:
        raise AgentsUnusable(f"{named}: the module has nothing of this name")
    try:
        cls = agent_class(found, module, name)
    except (TypeError, ImportError) as error:
        raise AgentsUnusable(f"{named}: {error}") from error
    if cls is None:
        raise AgentsUnusable(
            f"{named} is a {type(found).__name__}, not a class that inherits factorychain.Agent, and "
            "no object that an adapter serves, such as a compiled LangGraph graph"
        )
    return cls


def _is_own_agent(found: object, module: types.ModuleType) -> bool:
    """A class of this module or, for a package that shows it, of one inside."""
    if not isinstance(found, type) or not issubclass(found, Agent) or found is Agent:
        return False
    if issubclass(found, Adapted):
        return False  # see `offered`
    own = found.__module__ == module.__name__ or found.__module__.startswith(f"{module.__name__}.")
    return own and inspect.isfunction(getattr(found, "run", None))


def _of_entry_point(entry_point: metadata.EntryPoint) -> type[Agent] | None:
    """An installed agent that cannot be loaded is reported, and stops nobody else's."""
    try:
        return _agent_class(
            entry_point.load(), entry_point.value, entry_point.module, entry_point.attr
        )
    except Exception:
        log.exception("an installed agent cannot be loaded", entry_point=entry_point.name)
        return None


def _info(registered: Registered) -> AgentInfo:
    definition = registered.definition
    return AgentInfo(
        name=definition.name,
        description=definition.description,
        available=not registered.missing,
        missing=registered.missing,
        input_schema_json=orjson.dumps(definition.input_schema).decode(),
        tools=[
            ToolInfo(
                name=each.name,
                description=each.description,
                input_schema_json=orjson.dumps(each.signature.schema).decode(),
            )
            for each in definition.tools.values()
        ],
        repeat_safe=definition.repeat_safe,
        lifetime_s=definition.lifetime_s,
    )
