"""A call of a tool by the agent's own code: arguments validated, run within its time, between its events.

What the events around it promise is `open_call`'s.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Mapping
from typing import Protocol, cast

from factorychain._instance.active import ActiveRun
from factorychain._instance.asking import approved
from factorychain._instance.open_call import OpenCall, shown_arguments
from factorychain._instance.signature import BadArguments, Signature
from factorychain._instance.threads import in_thread
from factorychain.errors import ToolError


class Callee(Protocol):
    """What is called: a tool of one agent instance."""

    @property
    def name(self) -> str: ...

    @property
    def signature(self) -> Signature: ...

    @property
    def is_async(self) -> bool: ...

    @property
    def timeout_s(self) -> float | None:
        """How long a call may take; None: as long as its run."""

    @property
    def approval(self) -> str:
        """What the user is asked before a call; empty: nothing."""

    def plain(self, *args: object, **kwargs: object) -> object:
        """Call the function itself."""


async def execute(
    run: ActiveRun,
    callee: Callee,
    args: tuple[object, ...],
    arguments: Mapping[str, object] | str,
    *,
    message: str = "",
) -> object:
    """Call a tool inside a run; what it raises is raised.

    Raises:
        ToolError: also INVALID_ARGUMENTS, when the arguments do not fit, TOOL_TIMEOUT, when the call
            took longer than the tool may, and REFUSED or APPROVAL_TIMEOUT, when the user did not approve
            it: then users see no call.
    """
    ready: dict[str, object] | BadArguments
    try:
        ready = _ready(callee, args, arguments)
    except BadArguments as error:
        ready = error
    shown = arguments if isinstance(ready, BadArguments) else ready
    call_id = run.new_id("c")
    if callee.approval and not isinstance(ready, BadArguments):
        arguments_json = shown_arguments(shown, run.text_limit_bytes // 2)
        await approved(run, callee.name, arguments_json, call=call_id, prompt=callee.approval)
    call = await OpenCall.begin(run, callee.name, shown, message=message, call=call_id)
    try:
        if isinstance(ready, BadArguments):
            raise ToolError(f"{callee.name}: {ready}", "INVALID_ARGUMENTS") from ready
        with call.entered():
            result = await _within_time(run, callee, ready)
    except (
        GeneratorExit
    ):  # nobody drives it any more: it can await nothing, the host closes the pair
        raise
    except BaseException as error:
        await call.failed_by(error)
        raise
    await call.end(result)
    return result


def _ready(
    callee: Callee, args: tuple[object, ...], arguments: Mapping[str, object] | str
) -> dict[str, object]:
    signature = callee.signature
    if isinstance(arguments, str):
        return signature.validated_json(arguments)
    return signature.validated(signature.named(args, arguments))


async def _within_time(run: ActiveRun, callee: Callee, arguments: dict[str, object]) -> object:
    try:
        async with asyncio.timeout(callee.timeout_s) as limit:
            return await _invoke(run, callee, arguments)
    except TimeoutError as error:
        if not limit.expired():  # the tool's own
            raise
        raise ToolError(
            f"{callee.name} did not finish within {callee.timeout_s:g} s", "TOOL_TIMEOUT"
        ) from error
    except (SystemExit, KeyboardInterrupt) as error:
        # In a task of its own (parallel calls) asyncio would let it end the whole process.
        raise RuntimeError(f"tool {callee.name} raised {type(error).__name__}") from error


async def _invoke(run: ActiveRun, callee: Callee, arguments: dict[str, object]) -> object:
    name = callee.signature.context_name
    if name:
        arguments = {**arguments, name: run.context}
    if callee.is_async:
        return await cast("Awaitable[object]", callee.plain(**arguments))
    result = await in_thread(callee.plain, **arguments)
    # A plain function may hand back the coroutine of another one.
    return await result if inspect.isawaitable(result) else result
