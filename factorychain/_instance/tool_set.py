"""The tools of an agent: those that its class has, and those that are brought while it runs.

Invariant: no two tools of an agent have the same name.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping

from factorychain._instance.active import ActiveRun
from factorychain._instance.calls import execute
from factorychain._instance.tool_source import ToolSource, ToolSources
from factorychain.errors import ToolError
from factorychain.input import Json
from factorychain.tools import BoundTool, Tool


class ToolSet(Mapping[str, BoundTool]):
    """The tools of an agent by name, for loops in which a model chooses."""

    def __init__(
        self, run: ActiveRun, tools: Mapping[str, BoundTool], sources: ToolSources
    ) -> None:
        self._run = run
        self._own = tools
        self._sources = sources

    @property
    def _tools(self) -> dict[str, BoundTool]:
        brought = self._sources.tools
        return {**self._own, **{name: BoundTool(each, None) for name, each in brought.items()}}

    def __getitem__(self, name: str) -> BoundTool:
        return self._tools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    @property
    def schemas(self) -> list[dict[str, Json]]:
        """`{"name", "description", "input_schema"}` of each, for a model's request."""
        return [
            {"name": each.name, "description": each.description, "input_schema": each.input_schema}
            for each in self._tools.values()
        ]

    async def connect(self, source: ToolSource) -> None:
        """Open a source of tools for the rest of the run, such as an `MCPServer` with this user's headers.

        Raises:
            AgentError: it is not available.
            TypeError: it has a tool of a name that is taken.
        """
        await self._sources.open([source], self._own)

    async def call(
        self, name: str, arguments: Mapping[str, object] | str = "", *, message: str = ""
    ) -> object:
        """Call a tool with the arguments that a model gave, as a mapping or as JSON text.

        Args:
            name: the tool's name.
            arguments: JSON object of the arguments.
            message: id of the message in which the model made the call.

        Raises:
            ToolError: there is no such tool, the arguments do not fit, or the tool failed; its text can
                be given back to the model.
        """
        found = self._tools.get(name)
        if found is None:
            known = ", ".join(self._tools) or "none"
            raise ToolError(f"There is no tool {name!r}; there are: {known}", "TOOL_NOT_FOUND")
        return await execute(self._run, found, (), arguments, message=message)


def bound_tools(agent: object) -> dict[str, BoundTool]:
    """The tools of an agent instance: its methods, then what its class attribute `tools` lists."""
    methods = {id(each) for each in _methods(type(agent))}
    return {
        name: BoundTool(each, agent if id(each) in methods else None)
        for name, each in tools_of(type(agent)).items()
    }


def tools_of(cls: type) -> dict[str, Tool]:
    """The tools of an agent's class by name, in the order of definition.

    Raises:
        TypeError: two have the same name, or `tools` lists something that is not a function.
    """
    found: dict[str, Tool] = {}
    for each in [*_methods(cls), *_listed(cls)]:
        other = found.setdefault(each.name, each)
        if other is not each:
            raise TypeError(f"{cls.__qualname__} has two tools called {each.name!r}; rename one")
    return found


def sources_of(cls: type) -> list[ToolSource]:
    """What an agent's class lists that brings tools when a run has begun."""
    return [each for each in _items(cls) if isinstance(each, ToolSource)]


def _methods(cls: type) -> list[Tool]:
    names: dict[str, None] = {}
    for base in reversed(cls.__mro__):
        for name, each in vars(base).items():
            if isinstance(each, staticmethod | classmethod) and isinstance(each.__func__, Tool):
                raise TypeError(f"tool {name}: make it a plain method, or a function of the module")
            if isinstance(each, Tool):
                names[name] = None
    members = [inspect.getattr_static(cls, name) for name in names]
    return [each for each in members if isinstance(each, Tool)]


def _items(cls: type) -> list[object]:
    listed: object = getattr(cls, "tools", ())
    if not isinstance(listed, list | tuple):
        raise TypeError(f"{cls.__qualname__}.tools must be a list of functions")
    return list(listed)


def _listed(cls: type) -> list[Tool]:
    found = []
    for each in _items(cls):
        if isinstance(each, ToolSource):
            continue
        if not callable(each):
            raise TypeError(f"{cls.__qualname__}.tools lists {each!r}, which is not a function")
        found.append(each if isinstance(each, Tool) else Tool(each))
    return found
