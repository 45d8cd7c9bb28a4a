"""Calls of tools that a framework runs itself: it reports them, users see them as the agent's own.

Invariant: a call that was begun here is closed at the latest with its run, however that ends: `run_agent`
asks `close_calls` for it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from factorychain._instance.active import ActiveRun
from factorychain._instance.open_call import OpenCall
from factorychain._instance.values import clean_text

_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_OWN_ID: Final = re.compile(r"c\d[\d.]*")
_NAME_MAX_CHARS: Final = 128


async def begin_call(
    run: ActiveRun,
    tool: str,
    arguments: Mapping[str, object] | str,
    call_id: str | None = None,
    *,
    message: str = "",
) -> OpenCall:
    """A tool is being called: `await call.end(result)`, or `call.fail(reason, message)`, must follow.

    Args:
        run: the run that it happens in.
        tool: the tool's name in the framework.
        arguments: the arguments, or their text where they are no JSON object.
        call_id: the framework's own id, which users see if it can be one: new in the run, and such as
            every layer takes.
        message: id of the message in which a model made the call.

    Raises:
        EventRejected: an earlier event was rejected.
        RunEnded: the run is over.
    """
    call = call_id if call_id and _usable(run, call_id) else run.new_id("c")
    run.calls_seen.add(call)
    begun = await OpenCall.begin(run, _name(tool), arguments, message=message, call=call)
    run.external_calls[begun.call] = begun
    return begun


@asynccontextmanager
async def tool_call(
    run: ActiveRun,
    tool: str,
    arguments: Mapping[str, object] | str,
    call_id: str | None = None,
    *,
    message: str = "",
) -> AsyncIterator[OpenCall]:
    """`begin_call` for code that encloses the call: what is said inside belongs to it, and what is raised
    inside fails it. Its result is told by `await call.end(result)`; without that it has none.
    """
    call = await begin_call(run, tool, arguments, call_id, message=message)
    try:
        with call.entered():
            yield call
    except (
        GeneratorExit
    ):  # nobody drives it any more: it can await nothing, the host closes the pair
        raise
    except BaseException as error:
        await call.failed_by(error)
        raise
    await call.end()


async def close_calls(run: ActiveRun) -> None:
    """Say of every call that is still open that it did not end before its run.

    A cancel meanwhile keeps none of them open, and is raised when all are closed.
    """
    told: asyncio.CancelledError | None = None
    for call in list(run.external_calls.values()):
        try:
            await call.fail("CANCELLED", "The call did not end before its run")
        except asyncio.CancelledError as error:  # it is on its way, see `RunHost.emit`
            told = error
    if told is not None:
        raise told


def _usable(run: ActiveRun, call_id: str) -> bool:
    """On a later attempt ids of the first could come again."""
    new = call_id not in run.calls_seen and not _OWN_ID.fullmatch(call_id)
    return new and run.spec.attempt <= 1 and _ID.fullmatch(call_id) is not None


def _name(tool: str) -> str:
    """A name that every layer takes."""
    printable = "".join(each if each.isprintable() else " " for each in clean_text(tool))
    return printable[:_NAME_MAX_CHARS] or "tool"
