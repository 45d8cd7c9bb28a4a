"""Tools: functions of an agent whose calls a user sees.

Invariant: inside a run every call of a tool emits `tool_executing` before and `tool_completed` after,
also when it fails, is cancelled or takes too long, whichever way it is called: `self.search(query=…)`,
`ctx.call(self.search, …)` or by name through `ctx.tools`. Outside of a run a tool is its plain function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar, overload

from factorychain._instance.active import ActiveRun, current_run
from factorychain._instance.calls import execute
from factorychain._instance.signature import Signature, ToolSignature
from factorychain._instance.threads import on_event_loop, wait_from_thread
from factorychain._instance.tool_source import ToolSource
from factorychain.errors import ToolError
from factorychain.input import Json

if TYPE_CHECKING:
    from typing import Self

NAME_MAX_CHARS = 128

_MADE = "__factorychain_tool__"
_F = TypeVar("_F", bound=Callable[..., object])


@overload
def tool(function: _F, /) -> _F: ...
@overload
def tool(
    *,
    name: str = "",
    description: str = "",
    timeout_s: float | None = None,
    approval: bool | str = False,
) -> Callable[[_F], _F]: ...
def tool(
    function: Callable[..., object] | None = None,
    /,
    *,
    name: str = "",
    description: str = "",
    timeout_s: float | None = None,
    approval: bool | str = False,
) -> object:
    """Make a method or a function a tool.

    Its name and docstring become the tool's, its annotations the JSON Schema of the arguments, which
    are validated before every call. A parameter annotated `RunContext` is filled in and not shown.
    A synchronous tool runs in a thread: on the event loop a call of it is awaited as well.

    A call that takes longer than `timeout_s` is cancelled and raises `ToolError` with the reason
    TOOL_TIMEOUT; a thread cannot be stopped, but says nothing more. Without one, a call may take as long
    as its run.

    With `approval` the user is asked before every call: with that text, if it is one. The call begins when
    they have approved it; if they refuse, or do not answer in time, the caller gets a `ToolError` with the
    reason REFUSED or APPROVAL_TIMEOUT. The time that they take is not the call's.

    Raised `ToolError` and `AgentError` reach the user with their text, anything else as "The tool failed".
    """

    def decorate(function: Callable[..., object]) -> Tool:
        return Tool(function, name, description, timeout_s, approval)

    return decorate if function is None else decorate(function)


class Tool:
    """What `tool` makes of a function; on an instance it gives a `BoundTool`."""

    def __init__(
        self,
        function: Callable[..., object],
        name: str = "",
        description: str = "",
        timeout_s: float | None = None,
        approval: bool | str = False,
        signature: Signature | None = None,
    ) -> None:
        """As `tool`; a `signature` stands for that of the function, which takes any arguments by name.

        Raises:
            TypeError: the function, its name or its time limit cannot be a tool's.
        """
        self.function = function
        self.name = name or getattr(function, "__name__", "tool")
        self.description = description or inspect.getdoc(function) or ""
        self.timeout_s = timeout_s
        asked = f"Allow {self.name}?" if approval is True else approval
        self.approval = asked or ""
        """What the user is asked before a call; empty: nothing."""
        self._signature = signature
        self.is_async = _is_async(function)
        _check(self)
        self.__doc__ = function.__doc__
        self.__name__ = self.name
        self.__wrapped__ = function

    @cached_property
    def signature(self) -> Signature:
        """Read when it is first needed: annotations may name what the module defines later."""
        return self._signature or ToolSignature.of(self.function, self.name)

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> BoundTool: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> Tool | BoundTool:
        return self if instance is None else BoundTool(self, instance)

    def __call__(self, *args: object, **kwargs: object) -> object:
        """A tool that is no method."""
        return BoundTool(self, None)(*args, **kwargs)


class BoundTool:
    """A tool of one agent instance."""

    __slots__ = ("_instance", "tool")

    def __init__(self, tool: Tool, instance: object | None) -> None:
        self.tool = tool
        self._instance = instance

    @property
    def name(self) -> str:
        return self.tool.name

    @property
    def description(self) -> str:
        return self.tool.description

    @property
    def input_schema(self) -> dict[str, Json]:
        """JSON Schema of the arguments."""
        return self.signature.schema

    @property
    def signature(self) -> Signature:
        return self.tool.signature

    @property
    def is_async(self) -> bool:
        return self.tool.is_async

    @property
    def timeout_s(self) -> float | None:
        """How long a call may take; None: as long as its run."""
        return self.tool.timeout_s

    @property
    def approval(self) -> str:
        """What the user is asked before a call; empty: nothing."""
        return self.tool.approval

    def plain(self, *args: object, **kwargs: object) -> object:
        """Call the function itself: no events, no validation, no thread."""
        if self._instance is None:
            return self.tool.function(*args, **kwargs)
        return self.tool.function(self._instance, *args, **kwargs)

    def __call__(self, *args: object, **kwargs: object) -> object:
        run = current_run()
        if run is None:
            return self.plain(*args, **kwargs)
        call = execute(run, self, args, kwargs)
        if self.is_async or on_event_loop():
            return call
        return wait_from_thread(run.loop, call)


class ToolSet(Mapping[str, BoundTool]):
    """The tools of an agent by name, for loops in which a model chooses."""

    def __init__(self, run: ActiveRun, tools: Mapping[str, BoundTool]) -> None:
        self._run = run
        self._own = tools

    @property
    def _tools(self) -> dict[str, BoundTool]:
        brought = self._run.sources.tools
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
        await self._run.sources.open([source], self._own)

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


def as_tool(function: Callable[..., object]) -> BoundTool:
    """What `ctx.call` takes: a tool, or a plain function that is made one for the call."""
    if isinstance(function, BoundTool):
        return function
    if isinstance(function, Tool):
        return BoundTool(function, None)
    made: object = getattr(function, _MADE, None)
    if not isinstance(made, Tool):
        made = Tool(function)
        if inspect.isfunction(function):  # kept with it, since reading a signature takes 0.7 ms
            setattr(function, _MADE, made)
    return BoundTool(made, None)


def _is_async(function: Callable[..., object]) -> bool:
    """Whether calling it gives a coroutine: also for an object with an asynchronous `__call__`."""
    call = getattr(type(function), "__call__", None)  # noqa: B004 - the method itself is asked for
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _check(made: Tool) -> None:
    """Refuse what would fail at every call, or at the first."""
    if not 0 < len(made.name) <= NAME_MAX_CHARS or not made.name.isprintable():
        limit = f"1 to {NAME_MAX_CHARS} printable characters"
        raise TypeError(f"tool {made.name[:40]!r}: its name must have {limit}")
    if isinstance(made.function, staticmethod | classmethod):
        raise TypeError(f"tool {made.name}: make it a plain method, or a function of the module")
    if inspect.isgeneratorfunction(made.function) or inspect.isasyncgenfunction(made.function):
        raise TypeError(
            f"tool {made.name} must not yield: tell how far it is with ctx.progress, return the result"
        )
    if made.timeout_s is not None and not made.timeout_s > 0:
        raise TypeError(f"tool {made.name}: timeout_s is {made.timeout_s}; it must be above 0")


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
