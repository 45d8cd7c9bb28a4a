"""A server that asks something in the middle of a call asks the run's user."""

from __future__ import annotations

from typing import Any, cast

import mcp_types

from factorychain._instance.active import ActiveRun
from factorychain._instance.asking import ask
from factorychain.errors import EventRejected, InputTimeout, InvalidField
from factorychain.interrupt import Request


async def answer(
    run: ActiveRun, server: str, params: mcp_types.ElicitRequestParams
) -> mcp_types.ElicitResult:
    """What the user says to a form; a page elsewhere, and a form that is none, is declined."""
    if not isinstance(params, mcp_types.ElicitRequestFormParams):
        return mcp_types.ElicitResult(action="decline")
    try:
        asked = Request(
            prompt=f"{server} asks: {params.message}",
            schema=params.requested_schema,
            request=run.new_id("q"),
        )
        found = await ask(run, asked.plain())
    except InputTimeout:
        return mcp_types.ElicitResult(action="cancel")
    except (InvalidField, EventRejected, ValueError):
        return mcp_types.ElicitResult(action="decline")
    if not isinstance(found, dict):
        return mcp_types.ElicitResult(action="decline")
    return mcp_types.ElicitResult(action="accept", content=cast("Any", found))
