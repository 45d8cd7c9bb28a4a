"""Tools: functions of an agent whose calls a user sees.

Invariant: inside a run every call of a tool emits `tool_executing` before and `tool_completed` after,
also when it fails, is cancelled or takes too long, whichever way it is called: `self.search(query=…)`,
`ctx.call(self.search, …)` or by name through `ctx.tools`. Outside of a run a tool is its plain function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar, overload

from factorychain._instance.active import current_run
from factorychain._instance.calls import execute
from factorychain._instance.signature import Signature, ToolSignature
from factorychain._instance.threads import on_event_loop, wait_from_thread
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
